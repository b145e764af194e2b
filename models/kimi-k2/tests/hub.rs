//! Fetching checkpoints by repository id, against a hub in a thread.

#![expect(clippy::unwrap_used, reason = "a test that cannot be set up has failed")]

mod fake_hub;

use std::{collections::BTreeMap, fs, path::Path, time::Duration};

use fake_hub::{COMMIT, FakeHub, Request, git_hash, sha256};
use kimi_k2::{Checkpoint, CheckpointFiles, DownloadProgress, Hub, HubConfig, HubError};
use safetensors::SafeTensors;
use serde_json::json;
use tempfile::TempDir;

/// A name that needs escaping, and a second, small shard.
const BIG: &str = "shard one.safetensors";
const SMALL: &str = "b.safetensors";

/// The tiny checkpoint as a sharded repository with files that serving does not need.
fn repository() -> BTreeMap<String, Vec<u8>> {
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("../golden/tiny-int4");
    let weights = fs::read(golden.join("model.safetensors")).unwrap();
    let names = SafeTensors::deserialize(&weights).unwrap();
    let mut map: BTreeMap<String, &str> =
        names.names().into_iter().map(|name| (name.to_owned(), BIG)).collect();
    map.insert("extra".to_owned(), SMALL);
    let header = br#"{"extra":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}"#;
    let small = [&(header.len() as u64).to_le_bytes()[..], header, &[0; 4]].concat();
    BTreeMap::from([
        ("README.md".to_owned(), b"words".to_vec()),
        ("modeling.py".to_owned(), b"code".to_vec()),
        ("figures/plot.json".to_owned(), b"{}".to_vec()),
        ("config.json".to_owned(), fs::read(golden.join("config.json")).unwrap()),
        ("tiktoken.model".to_owned(), b"IQ== 0\n".to_vec()),
        ("chat_template.jinja".to_owned(), b"{{ messages }}".to_vec()),
        ("model.safetensors.index.json".to_owned(), json!({ "weight_map": map }).to_string().into_bytes()),
        (BIG.to_owned(), weights),
        (SMALL.to_owned(), small),
        ("unused.safetensors".to_owned(), vec![1; 100]),
    ])
}

fn silent(_: DownloadProgress<'_>) {}

struct World {
    server: FakeHub,
    cache: TempDir,
}

impl World {
    fn new() -> Self {
        Self { server: FakeHub::start(repository()), cache: tempfile::tempdir().unwrap() }
    }

    /// Without the small shard, so that there is one large transfer.
    fn with_one_shard() -> Self {
        let mut files = repository();
        files.remove(SMALL);
        let index = files.get_mut("model.safetensors.index.json").unwrap();
        let mut value: serde_json::Value = serde_json::from_slice(index).unwrap();
        value["weight_map"].as_object_mut().unwrap().remove("extra");
        *index = value.to_string().into_bytes();
        Self { server: FakeHub::start(files), cache: tempfile::tempdir().unwrap() }
    }

    fn config(&self) -> HubConfig {
        let mut config = HubConfig::new(self.cache.path().join("hub"));
        config.endpoint.clone_from(&self.server.endpoint);
        config.token = Some("hf_secret".to_owned());
        config.retry_delay = Duration::from_millis(1);
        config
    }

    fn hub(&self) -> Hub {
        Hub::new(self.config())
    }

    fn offline(&self) -> Hub {
        Hub::new(HubConfig { offline: true, ..self.config() })
    }

    fn repo(&self) -> std::path::PathBuf {
        self.cache.path().join("hub/models--org--tiny")
    }

    /// The ranges asked for in downloads of the big shard, `None` for a download from the beginning.
    fn ranges(&self) -> Vec<Option<String>> {
        let big = |request: &Request| request.at_storage && request.path.contains("shard%20one");
        self.server.take_requests().into_iter().filter(big).map(|request| request.range).collect()
    }

    fn big_etag(&self) -> String {
        sha256(&self.server.state().files[BIG])
    }
}

fn one_line(error: &HubError, parts: &[&str]) {
    let line = error.to_string();
    assert!(!line.contains('\n'), "{line}");
    for part in parts {
        assert!(line.contains(part), "{part:?} is not in: {line}");
    }
}

fn loads(directory: &Path) {
    let checkpoint = Checkpoint::open(CheckpointFiles::Directory(directory.to_owned())).unwrap();
    checkpoint.linear("model.layers.1.mlp.experts.0.gate_proj", 64, 128).unwrap();
}

#[test]
fn pulls_what_serving_needs_into_the_shared_layout() {
    let world = World::new();
    let mut reports = Vec::new();
    let mut on_progress = |progress: DownloadProgress<'_>| {
        reports.push((progress.file == BIG, progress.done, progress.all_done, progress.all_total));
    };
    let directory = world.hub().pull("org/tiny", "main", &mut on_progress).unwrap();
    loads(&directory);
    assert_eq!(directory, world.repo().join("snapshots").join(COMMIT));
    assert_eq!(fs::read_to_string(world.repo().join("refs/main")).unwrap(), COMMIT);
    for name in ["config.json", "tiktoken.model", "chat_template.jinja", BIG, SMALL] {
        let target = fs::read_link(directory.join(name)).unwrap();
        assert!(target.starts_with("../../blobs"), "{}", target.display());
    }
    assert_eq!(
        fs::read_link(directory.join(BIG)).unwrap().file_name().unwrap().to_str(),
        Some(&*world.big_etag())
    );
    for name in ["README.md", "modeling.py", "figures", "unused.safetensors"] {
        assert!(!directory.join(name).exists(), "{name} is not needed");
    }

    let needed =
        ["config.json", "tiktoken.model", "chat_template.jinja", "model.safetensors.index.json", BIG, SMALL];
    let all: u64 = needed.iter().map(|name| world.server.state().files[*name].len() as u64).sum();
    let big = world.server.state().files[BIG].len() as u64;
    assert!(reports.iter().any(|&(is_big, done, ..)| is_big && done == big));
    assert!(
        reports.iter().any(|&(_, _, all_done, all_total)| all_done == all && all_total == all),
        "{reports:?}"
    );

    // The token stays with the hub; the storage never sees it.
    let requests = world.server.take_requests();
    assert!(requests.iter().any(|request| request.at_storage));
    for request in requests {
        let expected = (!request.at_storage).then_some("Bearer hf_secret");
        assert_eq!(request.token.as_deref(), expected, "{request:?}");
    }

    // Complete: the hub is asked only what the revision means now.
    assert_eq!(world.hub().pull("org/tiny", "main", &mut silent).unwrap(), directory);
    assert_eq!(world.server.take_requests().len(), 1);
}

#[test]
fn a_renamed_repository_is_followed() {
    let world = World::new();
    let directory = world.hub().pull("org/old-name", "main", &mut silent).unwrap();
    loads(&directory);
    let target = fs::read_link(directory.join("config.json")).unwrap();
    let hash = git_hash(&world.server.state().files["config.json"]);
    assert_eq!(
        target.file_name().unwrap().to_str(),
        Some(hash.as_str()),
        "the redirect's own hash says nothing"
    );
}

#[test]
fn goes_on_after_a_cut() {
    let world = World::with_one_shard();
    world.server.state().cuts = vec![1_000_000, 500_000];
    let directory = world.hub().pull("org/tiny", "main", &mut silent).unwrap();
    loads(&directory);
    let wanted = [None, Some("bytes=1000000-".to_owned()), Some("bytes=1500000-".to_owned())];
    assert_eq!(world.ranges(), wanted);
}

#[test]
fn goes_on_in_a_later_run() {
    let world = World::with_one_shard();
    world.server.state().cuts = vec![700_000];
    world.server.state().unavailable = 1000;
    let error = world.hub().pull("org/tiny", "main", &mut silent).unwrap_err();
    one_line(&error, &["keeps breaking", "run the command again"]);
    assert!(world.offline().cached("org/tiny", "main").is_err(), "nothing unfinished is offered");
    let partial = world.repo().join("blobs").join(format!("{}.incomplete", world.big_etag()));
    let length = fs::metadata(&partial).unwrap().len();
    assert_eq!(length, 700_000);
    world.ranges();

    world.server.state().unavailable = 0;
    let directory = world.hub().pull("org/tiny", "main", &mut silent).unwrap();
    loads(&directory);
    assert_eq!(world.ranges(), [Some(format!("bytes={length}-"))]);
    assert!(!partial.exists());
}

#[test]
fn servers_without_ranges_or_head_work_too() {
    let world = World::new();
    world.server.state().ignores_ranges = true;
    world.server.state().no_head = true;
    world.server.state().cuts = vec![1_000_000, 1_000_000];
    loads(&world.hub().pull("org/tiny", "main", &mut silent).unwrap());
}

#[test]
fn damaged_contents_are_thrown_away() {
    let world = World::with_one_shard();
    world.server.state().corrupt = 1;
    loads(&world.hub().pull("org/tiny", "main", &mut silent).unwrap());
    assert_eq!(world.ranges(), [None, None], "once damaged, once good");

    let world = World::with_one_shard();
    world.server.state().corrupt = 1000;
    let error = world.hub().pull("org/tiny", "main", &mut silent).unwrap_err();
    one_line(&error, &["arrived damaged twice", "expected sha256", "found sha256"]);
    for name in [world.big_etag(), format!("{}.incomplete", world.big_etag())] {
        assert!(!world.repo().join("blobs").join(name).exists());
    }

    // A wrong beginning left by someone else: noticed, thrown away, fetched again.
    world.server.state().corrupt = 0;
    let partial = world.repo().join("blobs").join(format!("{}.incomplete", world.big_etag()));
    fs::write(&partial, vec![7; 5000]).unwrap();
    world.ranges();
    loads(&world.hub().pull("org/tiny", "main", &mut silent).unwrap());
    assert_eq!(world.ranges(), [Some("bytes=5000-".to_owned()), None]);
}

#[test]
fn damaged_small_files_are_noticed() {
    let world = World::with_one_shard();
    world.server.state().corrupt_small = 1;
    loads(&world.hub().pull("org/tiny", "main", &mut silent).unwrap());

    let world = World::with_one_shard();
    world.server.state().corrupt_small = 1000;
    let error = world.hub().pull("org/tiny", "main", &mut silent).unwrap_err();
    one_line(&error, &["arrived damaged twice", "expected git hash", "found git hash"]);
}

#[test]
fn offline_uses_the_cache_and_says_what_is_missing() {
    let world = World::new();
    let error = world.offline().fetch("org/tiny", "main", &mut silent).unwrap_err();
    one_line(&error, &["org/tiny", "main", "missing the whole checkpoint", "pull org/tiny"]);
    assert_eq!(world.server.take_requests().len(), 0);

    let pulled = world.hub().pull("org/tiny", "main", &mut silent).unwrap();
    world.server.take_requests();
    let cached = world.offline().fetch("org/tiny", "main", &mut silent).unwrap();
    assert_eq!(cached, pulled);
    loads(&cached);
    assert_eq!(world.offline().cached("org/tiny", COMMIT).unwrap(), pulled, "a commit is a revision");
    fs::remove_file(pulled.join(BIG)).unwrap();
    one_line(
        &world.offline().fetch("org/tiny", "main", &mut silent).unwrap_err(),
        &[&format!("missing {BIG}")],
    );
    assert_eq!(world.server.take_requests().len(), 0);
}

#[test]
fn unreachable_hub_falls_back_to_the_cache() {
    let world = World::new();
    let pulled = world.hub().pull("org/tiny", "main", &mut silent).unwrap();
    let gone = || {
        let mut config = world.config();
        // A port that was free a moment ago.
        let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        config.endpoint = format!("http://{free}");
        Hub::new(config)
    };
    assert_eq!(gone().fetch("org/tiny", "main", &mut silent).unwrap(), pulled);
    one_line(
        &gone().fetch("org/tiny", "other", &mut silent).unwrap_err(),
        &["cannot be reached", "--offline"],
    );
}

#[test]
fn revisions_have_their_own_snapshots() {
    let world = World::new();
    let other = "ffffffffffffffffffffffffffffffffffffffff";
    world.server.state().revisions.insert("refs/pr/1".to_owned(), other.to_owned());
    let main = world.hub().pull("org/tiny", "main", &mut silent).unwrap();
    world.ranges();
    let pr = world.hub().pull("org/tiny", "refs/pr/1", &mut silent).unwrap();
    assert_ne!(main, pr);
    assert_eq!(world.ranges(), [], "contents that are here are not fetched again");
    loads(&pr);
    assert_eq!(fs::read_to_string(world.repo().join("refs/refs/pr/1")).unwrap(), other);
}

#[test]
fn refusals_say_what_to_do() {
    let world = World::new();
    one_line(
        &world.hub().pull("org/tiny", "nope", &mut silent).unwrap_err(),
        &["does not exist", "404", "RevisionNotFound", "--revision"],
    );
    one_line(&world.hub().pull("org/none", "main", &mut silent).unwrap_err(), &["does not exist"]);
    world.server.state().refuse = Some(403);
    one_line(
        &world.hub().pull("org/tiny", "main", &mut silent).unwrap_err(),
        &["403", "GatedRepo", "licence"],
    );
    let anonymous = Hub::new(HubConfig { token: None, ..world.config() });
    world.server.state().refuse = Some(401);
    one_line(&anonymous.pull("org/tiny", "main", &mut silent).unwrap_err(), &["401", "set HF_TOKEN"]);
    for id in ["../tiny", "org/tiny/more", "", "org/.."] {
        one_line(
            &world.hub().pull(id, "main", &mut silent).unwrap_err(),
            &["repository id", "organisation/name"],
        );
    }
    one_line(&world.hub().pull("org/tiny", "../../x", &mut silent).unwrap_err(), &["revision"]);
}

#[test]
fn variables_as_other_programs_read_them() {
    let home = tempfile::tempdir().unwrap();
    fs::write(home.path().join("token"), "hf_from_file\n").unwrap();
    let path = home.path().display().to_string();
    let read = |pairs: &[(&str, &str)]| {
        HubConfig::from_variables(|name| {
            pairs.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned())
        })
    };
    let plain = read(&[("HOME", "/home/someone")]);
    assert_eq!(plain.cache_dir, Path::new("/home/someone/.cache/huggingface/hub"));
    assert_eq!((plain.endpoint.as_str(), plain.offline), ("https://huggingface.co", false));
    let full = read(&[("HF_HOME", &path), ("HF_ENDPOINT", "http://mirror/"), ("HF_HUB_OFFLINE", "1")]);
    assert_eq!(full.cache_dir, home.path().join("hub"));
    assert_eq!((full.endpoint.as_str(), full.offline), ("http://mirror", true));
    assert_eq!(full.token.as_deref(), Some("hf_from_file"));
    let explicit = read(&[("HF_HOME", &path), ("HF_HUB_CACHE", "/big/disk"), ("HF_TOKEN", "hf_variable")]);
    assert_eq!(
        (explicit.cache_dir.to_str(), explicit.token.as_deref()),
        (Some("/big/disk"), Some("hf_variable"))
    );
    assert!(!format!("{explicit:?}").contains("hf_variable"), "a token must not reach a log");
}
