//! Which cores are near the same memory.

use std::{fs, path::Path};

/// Where Linux describes the nodes of a machine: groups of cores, each with memory of its own.
const NODES: &str = "/sys/devices/system/node";

/// Lets the calling thread, and those it starts from now on, run only near the memory of its part of the machine's nodes: rank
/// `rank` of `ranks` gets every node whose turn it is. Does nothing where there is one node, or the system does not tell.
pub(crate) fn stay_near(rank: usize, ranks: usize) {
    let cores = cores_of(&nodes(Path::new(NODES)), rank, ranks);
    if cores.is_empty() {
        return;
    }
    #[cfg(target_os = "linux")]
    {
        use rustix::thread::{CpuSet, sched_setaffinity};
        let mut set = CpuSet::new();
        cores.iter().filter(|core| **core < CpuSet::MAX_CPU).for_each(|core| set.set(*core));
        if let Err(error) = sched_setaffinity(None, &set) {
            tracing::warn!(rank, %error, "the rank's threads are not bound to the cores of its memory");
        }
    }
}

/// The cores of each node that has any, in the order of the nodes.
fn nodes(directory: &Path) -> Vec<Vec<usize>> {
    let mut nodes = Vec::new();
    for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
        let name = entry.file_name();
        let number = name.to_str().and_then(|name| name.strip_prefix("node")?.parse::<usize>().ok());
        let cores = fs::read_to_string(entry.path().join("cpulist")).ok().and_then(|list| core_list(&list));
        if let (Some(number), Some(cores)) = (number, cores.filter(|cores| !cores.is_empty())) {
            nodes.push((number, cores));
        }
    }
    nodes.sort_unstable();
    nodes.into_iter().map(|(_, cores)| cores).collect()
}

/// `0-3,8,10-11`, as Linux writes it; `None` if it is something else.
fn core_list(text: &str) -> Option<Vec<usize>> {
    let mut cores = Vec::new();
    for part in text.trim().split(',').filter(|part| !part.is_empty()) {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        cores.extend(first.parse::<usize>().ok()?..=last.parse().ok()?);
    }
    Some(cores)
}

/// The cores of one rank; none when they need not be chosen.
fn cores_of(nodes: &[Vec<usize>], rank: usize, ranks: usize) -> Vec<usize> {
    if nodes.len() < 2 || ranks < 2 {
        return Vec::new();
    }
    let own = nodes.iter().enumerate().filter(|(node, _)| {
        // Several ranks on a node, or several nodes of a rank.
        if ranks >= nodes.len() {
            rank * nodes.len() / ranks == *node
        } else {
            node * ranks / nodes.len() == rank
        }
    });
    own.flat_map(|(_, cores)| cores).copied().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nodes_are_read_as_linux_describes_them() {
        let directory = tempfile::tempdir().unwrap();
        // Node 2 has memory and no cores, as those of some accelerators.
        for (node, list) in [("node10", "4-5\n"), ("node0", "0-1,8\n"), ("node1", "2\n"), ("node2", "\n")] {
            fs::create_dir(directory.path().join(node)).unwrap();
            fs::write(directory.path().join(node).join("cpulist"), list).unwrap();
        }
        fs::create_dir(directory.path().join("power")).unwrap();
        assert_eq!(nodes(directory.path()), [vec![0, 1, 8], vec![2], vec![4, 5]]);
        assert!(nodes(Path::new("/nowhere")).is_empty());
        assert_eq!(core_list("0-x"), None);
    }

    #[test]
    fn ranks_share_nodes_and_nodes_share_ranks() {
        let nodes = [vec![0, 1], vec![2, 3], vec![4], vec![5]];
        let cores = |count: usize, ranks| -> Vec<_> {
            (0..ranks).map(|rank| cores_of(&nodes[..count], rank, ranks)).collect()
        };
        assert_eq!(cores(4, 2), [vec![0, 1, 2, 3], vec![4, 5]]);
        assert_eq!(cores(2, 2), [[0, 1], [2, 3]]);
        assert_eq!(cores(2, 4), [[0, 1], [0, 1], [2, 3], [2, 3]]);
        assert_eq!(cores(4, 3), [vec![0, 1, 2, 3], vec![4], vec![5]]);
        assert!(cores(1, 2).concat().is_empty() && cores(4, 1).concat().is_empty());
    }
}
