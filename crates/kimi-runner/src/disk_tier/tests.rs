use std::fs;

use super::*;

const IDENTITY: [u8; 32] = [7; 32];
const BLOCK: usize = 1000;

fn key(number: u8) -> BlockKey {
    BlockKey([number; 16])
}

fn content(number: u8) -> Vec<u8> {
    (0..BLOCK).map(|index| (index as u8).wrapping_mul(number)).collect()
}

fn config(parent: &tempfile::TempDir) -> DiskTierConfig {
    DiskTierConfig { directory: parent.path().join("kv"), max_bytes: 1 << 20 }
}

fn open(parent: &tempfile::TempDir) -> (DiskTier, TierContents) {
    DiskTier::open(&config(parent), IDENTITY, BLOCK).unwrap()
}

/// A directory with blocks 1, 2 and 3, written in this order.
fn filled() -> tempfile::TempDir {
    let parent = tempfile::tempdir().unwrap();
    let (mut tier, contents) = open(&parent);
    assert_eq!((contents.capacity, contents.stored), (256, vec![]));
    let mut report = TierReport::default();
    for number in 1..=3 {
        tier.writer.save(key(number), content(number));
        tier.writer.wait(&mut report);
        // So that times of change differ on every file system.
        let time = std::time::SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(number.into());
        fs::File::open(tier.directory.path(key(number))).unwrap().set_modified(time).unwrap();
    }
    assert_eq!(report.written, [key(1), key(2), key(3)]);
    parent
}

#[test]
fn the_next_process_finds_what_was_written_in_the_order_of_use() {
    let parent = filled();
    let (mut tier, contents) = open(&parent);
    assert_eq!(contents.stored, [key(1), key(2), key(3)]);
    assert!(tier.read(key(2)));
    assert_eq!(block_file::payload(&tier.buffer), content(2));
    tier.writer.drop_block(key(3));
    drop(tier);
    let (_, contents) = open(&parent);
    assert_eq!(contents.stored, [key(1), key(2)], "2 was used last");
}

#[test]
fn damaged_blocks_are_not_read_and_are_gone_afterwards() {
    type Damage = fn(&mut Vec<u8>);
    let damages: [Damage; 6] = [
        |file| file[HEADER_AND_SOME] ^= 1,
        |file| *file.last_mut().unwrap() = 0xff,
        |file| file[0] = b'x',
        |file| file[9] ^= 0x10,
        |file| file[20] ^= 1,
        Vec::clear,
    ];
    for damage in damages {
        let parent = filled();
        let (mut tier, _) = open(&parent);
        let path = tier.directory.path(key(1));
        let mut file = fs::read(&path).unwrap();
        damage(&mut file);
        fs::write(&path, &file).unwrap();
        assert!(!tier.read(key(1)));
        assert!(tier.read(key(2)) && !tier.read(key(4)), "others are as they were");
        drop(tier);
        assert_eq!(open(&parent).1.stored.len(), 2);
    }
}

const HEADER_AND_SOME: usize = block_file::HEADER + 17;

#[test]
fn a_block_under_another_name_or_of_another_cache_is_not_read() {
    let parent = filled();
    let (mut tier, _) = open(&parent);
    fs::copy(tier.directory.path(key(1)), tier.directory.path(key(2))).unwrap();
    assert!(!tier.read(key(2)));
    let (mut other, contents) = DiskTier::open(&config(&parent), [8; 32], BLOCK).unwrap();
    assert_eq!(contents.stored, [], "another checkpoint begins with nothing");
    fs::copy(tier.directory.path(key(1)), other.directory.path(key(1))).unwrap();
    assert!(!other.read(key(1)));
}

#[test]
fn cut_unfinished_and_foreign_files_are_no_blocks() {
    let parent = filled();
    let (tier, _) = open(&parent);
    let path = |number| tier.directory.path(key(number));
    fs::write(path(1), &fs::read(path(1)).unwrap()[..500]).unwrap();
    fs::rename(path(2), path(2).with_extension("tmp")).unwrap();
    let note = path(3).with_file_name("note.txt");
    fs::write(&note, "mine").unwrap();
    let paths = [path(1), path(2).with_extension("tmp")];
    drop(tier);
    assert_eq!(open(&parent).1.stored, [key(3)]);
    assert!(note.exists() && paths.iter().all(|path| !path.exists()), "only what is ours is deleted");
}

#[test]
fn nobody_else_uses_the_directory_at_the_same_time() {
    let parent = filled();
    let (tier, _) = open(&parent);
    let error = DiskTier::open(&config(&parent), IDENTITY, BLOCK).map(|_| ()).unwrap_err();
    assert!(matches!(error, DiskTierError::InUse(_)), "{error}");
    drop(tier);
    open(&parent);
}

#[test]
fn a_limit_below_one_block_and_a_directory_that_is_none_are_errors_that_say_so() {
    let parent = filled();
    let small = DiskTierConfig { max_bytes: 4095, ..config(&parent) };
    let error = DiskTier::open(&small, IDENTITY, BLOCK).map(|_| ()).unwrap_err().to_string();
    assert!(error.contains("--kv-disk-size") && error.contains("4096"), "{error}");
    let file = parent.path().join("file");
    fs::write(&file, "").unwrap();
    let wrong = DiskTierConfig { directory: file, max_bytes: 1 << 20 };
    let error = DiskTier::open(&wrong, IDENTITY, BLOCK).map(|_| ()).unwrap_err().to_string();
    assert!(error.contains("--kv-disk"), "{error}");
}

#[test]
fn a_disk_that_refuses_loses_blocks_and_nothing_else() {
    let parent = filled();
    let (mut tier, _) = open(&parent);
    let folder = tier.directory.path(key(9)).parent().unwrap().to_owned();
    fs::remove_dir(&folder).unwrap();
    let mut report = TierReport::default();
    for number in [9, 2] {
        tier.writer.save(key(number), content(number));
    }
    tier.writer.wait(&mut report);
    assert_eq!((report.written, report.unwritten), (vec![key(2)], vec![key(9)]));
    fs::create_dir(&folder).unwrap();
    tier.writer.save(key(9), content(9));
    tier.writer.wait(&mut TierReport::default());
    assert!(tier.read(key(9)), "and is used again when it is well");
}
