//! Reading files: holes, changes while reading.

use super::*;
use crate::fs::{ScanEvent, ScanOptions, Scanner};
use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::Path;

fn item(path: &Path) -> ScanItem {
    let last = Scanner::new([path], ScanOptions::default()).unwrap().last();
    let Some(ScanEvent::Item(item)) = last else { panic!("{last:?}") };
    item
}

/// Offset and bytes.
type Data = Vec<(u64, Vec<u8>)>;
/// Offset and length.
type Holes = Vec<(u64, u64)>;

/// Pieces with data as (offset, bytes), neighbours joined.
fn pieces(reader: &mut FileReader, buffer_len: usize) -> (Data, Holes) {
    let (mut data, mut holes): (Data, Holes) = (Vec::new(), Vec::new());
    let mut position = 0;
    let mut buffer = vec![0; buffer_len];
    loop {
        match reader.next_piece(&mut buffer).unwrap() {
            Piece::End => return (data, holes),
            Piece::Hole { offset, len } => {
                assert_eq!(offset, position);
                assert!(len > 0);
                // Two holes in a row would have to be one.
                assert!(holes.last().is_none_or(|&(start, len)| start + len < offset));
                holes.push((offset, len));
                position += len;
            }
            Piece::Data(len) => {
                match data.last_mut() {
                    Some((start, bytes)) if *start + bytes.len() as u64 == position => {
                        bytes.extend_from_slice(&buffer[..len]);
                    }
                    _ => data.push((position, buffer[..len].to_vec())),
                }
                position += len as u64;
            }
        }
    }
}

#[test]
fn holes_at_the_start_in_the_middle_and_at_the_end() {
    const BLOCK: u64 = 64 << 10;
    let folder = tempfile::tempdir().unwrap();
    // (data extents in blocks, size in blocks)
    let cases: &[(&[u64], u64)] = &[(&[1], 2), (&[0], 3), (&[0, 2], 3), (&[1, 3], 5), (&[], 4), (&[0, 1, 2], 3)];
    for (number, (extents, blocks)) in cases.iter().enumerate() {
        let path = folder.path().join(number.to_string());
        let file = File::create(&path).unwrap();
        for block in *extents {
            file.write_all_at(&vec![*block as u8 + 1; BLOCK as usize], block * BLOCK).unwrap();
        }
        file.set_len(blocks * BLOCK).unwrap();
        let item = item(&path);
        for buffer_len in [1000, 1 << 20] {
            let mut reader = FileReader::open(&item).unwrap();
            let (data, holes) = pieces(&mut reader, buffer_len);
            let end = reader.finish().unwrap();
            assert_eq!(end, ReadEnd { size: blocks * BLOCK, changed: false });
            let total: u64 = data.iter().map(|(_, bytes)| bytes.len() as u64).sum();
            assert_eq!(total, extents.len() as u64 * BLOCK, "case {number}");
            assert_eq!(holes.iter().map(|(_, len)| len).sum::<u64>() + total, blocks * BLOCK);
            for (offset, bytes) in data {
                for (index, byte) in bytes.iter().enumerate() {
                    assert_eq!(u64::from(*byte), (offset + index as u64) / BLOCK + 1);
                }
            }
        }
    }
}

#[test]
fn a_growing_file_ends_where_it_was_and_is_reported() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("log");
    fs::write(&path, vec![1; 200_000]).unwrap();
    let mut reader = FileReader::open(&item(&path)).unwrap();
    fs::write(&path, vec![1; 300_000]).unwrap();
    let (data, _) = pieces(&mut reader, 4096);
    assert_eq!(data[0].1.len(), 200_000);
    assert_eq!(reader.finish().unwrap(), ReadEnd { size: 200_000, changed: true });
}

#[test]
fn a_shrinking_file_gives_what_is_left() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("f");
    fs::write(&path, vec![1; 200_000]).unwrap();
    let mut reader = FileReader::open(&item(&path)).unwrap();
    File::options().write(true).open(&path).unwrap().set_len(1000).unwrap();
    let (data, _) = pieces(&mut reader, 4096);
    assert_eq!(data.iter().map(|(_, bytes)| bytes.len()).sum::<usize>(), 1000);
    assert_eq!(reader.finish().unwrap(), ReadEnd { size: 1000, changed: true });
}

#[test]
fn same_size_new_content_is_seen_by_its_times() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("f");
    fs::write(&path, vec![1; 100_000]).unwrap();
    let item = item(&path);
    let mut reader = FileReader::open(&item).unwrap();
    pieces(&mut reader, 4096);
    // The clock that stamps files ticks slowly; a change is certain once the stamp moves.
    let file = File::options().write(true).open(&path).unwrap();
    loop {
        file.write_all_at(&[2; 100], 5).unwrap();
        if FileStat::from_raw(&rustix::fs::stat(&path).unwrap()).mtime != item.stat.mtime {
            break;
        }
    }
    assert!(reader.finish().unwrap().changed);
}

#[test]
fn what_took_a_files_place_is_not_read() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("f");
    fs::write(&path, "one").unwrap();
    fs::write(folder.path().join("secret"), "two").unwrap();
    let item = item(&path);
    let mut buffer = Vec::new();
    fs::rename(&path, folder.path().join("away")).unwrap();
    assert!(matches!(FileReader::open(&item), Err(ReadError::Vanished)));
    std::os::unix::fs::symlink("secret", &path).unwrap();
    assert!(matches!(FileReader::open(&item), Err(ReadError::Vanished)));
    assert!(matches!(read_small(&item, 100, &mut buffer), Err(ReadError::Vanished)));
    fs::remove_file(&path).unwrap();
    fs::write(&path, "new").unwrap();
    assert!(matches!(FileReader::open(&item), Err(ReadError::Vanished)));
    assert!(matches!(read_small(&item, 100, &mut buffer), Err(ReadError::Vanished)));
    fs::remove_file(&path).unwrap();
    rustix::fs::mknodat(rustix::fs::CWD, &path, rustix::fs::FileType::Fifo, rustix::fs::Mode::from_raw_mode(0o600), 0)
        .unwrap();
    assert!(matches!(FileReader::open(&item), Err(ReadError::Vanished)));
}

#[test]
fn small_files_in_one_read_unless_they_changed() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("f");
    let mut buffer = vec![9; 50];
    for content in ["", "x", "some text"] {
        fs::write(&path, content).unwrap();
        let item = item(&path);
        assert!(matches!(read_small(&item, 9, &mut buffer).unwrap(), SmallRead::Whole(_)));
        assert_eq!(buffer, content.as_bytes());
    }
    let item = item(&path);
    assert!(matches!(read_small(&item, 8, &mut buffer).unwrap(), SmallRead::Other(_)));
    fs::write(&path, "some text and more").unwrap();
    let SmallRead::Other(mut reader) = read_small(&item, 100, &mut buffer).unwrap() else { panic!() };
    assert_eq!(pieces(&mut reader, 100).0, [(0, b"some text and more".to_vec())]);
    assert!(!reader.finish().unwrap().changed);
}
