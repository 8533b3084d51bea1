//! The scan against real directories.

use super::*;
use std::fs;
use std::os::unix::ffi::OsStrExt;

/// Paths below `root`, and the paths warned about; checks the order on the way.
fn paths(scanner: Scanner, root: &Path) -> (Vec<String>, Vec<(String, WarningKind)>) {
    let root = root.as_os_str().as_bytes();
    let below = |path: &[u8]| path.strip_prefix(root).map(|rest| String::from_utf8_lossy(rest).into_owned());
    let (mut items, mut warnings) = (Vec::new(), Vec::new());
    let mut last: Option<PathKey> = None;
    for event in scanner {
        match event {
            ScanEvent::Item(item) => {
                assert!(last.as_ref().is_none_or(|last| *last < item.key), "{last:?} before {:?}", item.key);
                items.extend(below(&item.key.to_path()).filter(|path| !path.is_empty()));
                last = Some(item.key);
            }
            ScanEvent::Warning(warning) => {
                warnings.extend(below(&warning.path).map(|path| (path, warning.kind)));
            }
        }
    }
    (items, warnings)
}

fn tree(paths: &[&str]) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    for path in paths {
        let full = folder.path().join(path);
        if path.ends_with('/') {
            fs::create_dir_all(full).unwrap();
        } else {
            fs::create_dir_all(full.parent().unwrap()).unwrap();
            fs::write(full, path).unwrap();
        }
    }
    folder
}

fn scan(folder: &tempfile::TempDir, options: ScanOptions) -> Vec<String> {
    let (items, warnings) = paths(Scanner::new([folder.path()], options).unwrap(), folder.path());
    assert_eq!(warnings, []);
    items
}

#[test]
fn listing_first_then_subdirectories_in_the_same_order() {
    let folder = tree(&["b/y", "b/a/z", "a!", "a/1", "a-b/2", "c"]);
    let all = scan(&folder, ScanOptions::default());
    assert_eq!(all, ["/a", "/a!", "/a-b", "/b", "/c", "/a/1", "/a-b/2", "/b/a", "/b/y", "/b/a/z"]);
}

#[test]
fn ancestors_come_with_their_own_metadata_and_nothing_else() {
    let folder = tree(&["x/deep/one", "x/deep/two", "x/other", "y/three"]);
    let root = folder.path();
    let mut ancestors = Vec::new();
    let mut all = Vec::new();
    for event in
        Scanner::new([root.join("y"), root.join("x/deep"), root.join("x/deep/one")], ScanOptions::default()).unwrap()
    {
        let ScanEvent::Item(item) = event else { panic!("{event:?}") };
        let path = item.key.to_path();
        if item.is_ancestor {
            ancestors.push(path.clone());
            let stat = rustix::fs::stat(path.as_slice()).unwrap();
            assert_eq!(FileStat::from_raw(&stat).ino, item.stat.ino);
        }
        all.push(path);
    }
    let path = |rest: &str| [root.as_os_str().as_bytes(), rest.as_bytes()].concat();
    assert_eq!(ancestors.first().map(Vec::as_slice), Some(b"/".as_slice()));
    assert!(ancestors.contains(&path("")) && ancestors.contains(&path("/x")));
    assert!(!ancestors.contains(&path("/x/deep")));
    assert!(all.contains(&path("/x/deep/two")) && all.contains(&path("/y/three")) && !all.contains(&path("/x/other")));
}

#[test]
fn links_above_a_root_are_followed_and_a_root_link_only_with_a_slash() {
    let folder = tree(&["real/in/file"]);
    let root = folder.path();
    std::os::unix::fs::symlink("real", root.join("link")).unwrap();
    let (items, _) = paths(Scanner::new([root.join("link/in")], ScanOptions::default()).unwrap(), root);
    assert_eq!(items, ["/link", "/link/in", "/link/in/file"]);
    let (items, warnings) = paths(Scanner::new([root.join("link")], ScanOptions::default()).unwrap(), root);
    assert_eq!(items, ["/link"]);
    assert_eq!(warnings, [("/link".to_owned(), WarningKind::RootIsLink)]);
    let (items, warnings) = paths(Scanner::new([root.join("link/")], ScanOptions::default()).unwrap(), root);
    assert_eq!(items, ["/link", "/link/in", "/link/in/file"]);
    assert_eq!(warnings, []);
}

#[test]
fn roots_that_cannot_be_are_errors_at_once() {
    let new = |root: &str| Scanner::new([root], ScanOptions::default()).err().map(|error| error.to_string());
    assert!(new("relative").unwrap().contains("not an absolute path"));
    assert!(new("/usr/../etc").unwrap().contains(".."));
    assert!(new("/does/not/exist").unwrap().contains("/does/not/exist"));
    assert!(Scanner::new(Vec::<PathBuf>::new(), ScanOptions::default()).is_err());
}

#[test]
fn excludes_caches_and_own_state_stay_out() {
    let folder = tree(&["keep", "a.tmp", "cache/x", "cache/sub/y", "fake/z", "state/db", "n/build/o", "n/b"]);
    let root = folder.path();
    fs::write(root.join("cache/CACHEDIR.TAG"), "Signature: 8a477f597d28d172789f06886806bc55\n# ours").unwrap();
    fs::write(root.join("fake/CACHEDIR.TAG"), "Signature: something else").unwrap();
    let options = ScanOptions {
        excludes: Excludes::new(["*.tmp", "build/"]).unwrap(),
        exclude_caches: true,
        own_directories: vec![root.join("state"), root.join("missing")],
        ..ScanOptions::default()
    };
    let expected = ["/cache", "/fake", "/keep", "/n", "/cache/CACHEDIR.TAG", "/fake/CACHEDIR.TAG", "/fake/z", "/n/b"];
    assert_eq!(scan(&folder, options), expected);
}

#[test]
fn one_file_system_keeps_the_mount_point_and_stops_there() {
    let options = ScanOptions { one_file_system: true, ..ScanOptions::default() };
    let mut below_proc = 0;
    let mut saw_proc = false;
    // Only the first levels: the listing of / is over before anything below it comes.
    for event in Scanner::new(["/"], options).unwrap().take(200) {
        if let ScanEvent::Item(item) = event {
            saw_proc |= item.key.to_path() == b"/proc";
            below_proc += usize::from(item.key.to_path().starts_with(b"/proc/"));
        }
    }
    assert!(saw_proc);
    assert_eq!(below_proc, 0);
}

#[test]
fn a_directory_that_spills_gives_the_same_order() {
    let folder = tempfile::tempdir().unwrap();
    for number in 0..3000u32 {
        let name = format!("{:08x}", number.wrapping_mul(2_654_435_761));
        if number % 3 == 0 {
            fs::create_dir(folder.path().join(&name)).unwrap();
            fs::write(folder.path().join(&name).join("inside"), b"").unwrap();
        } else {
            fs::write(folder.path().join(&name), b"").unwrap();
        }
    }
    let plain = scan(&folder, ScanOptions::default());
    assert_eq!(plain.len(), 4000);
    let mut scanner = Scanner::new([folder.path()], ScanOptions::default()).unwrap();
    scanner.listing_bytes_max = 5000;
    scanner.waiting = WaitingStack::new(100, SpillPlace::default());
    assert_eq!(paths(scanner, folder.path()).0, plain);
}

#[test]
fn paths_far_longer_than_path_max_and_few_descriptors() {
    use rustix::fs::{Mode, OFlags, mkdirat, openat};
    let folder = tempfile::tempdir().unwrap();
    let mut fd: rustix::fd::OwnedFd = fs::File::open(folder.path()).unwrap().into();
    let name = [b'n'; 200];
    for _ in 0..280 {
        mkdirat(&fd, &name[..], Mode::from_raw_mode(0o755)).unwrap();
        mkdirat(&fd, &b"zz"[..], Mode::from_raw_mode(0o755)).unwrap();
        fd = openat(&fd, &name[..], OFlags::DIRECTORY, Mode::empty()).unwrap();
    }
    let mut scanner = Scanner::new([folder.path()], ScanOptions::default()).unwrap();
    let pool = FdPool::new(8);
    scanner.base = Dir::base(Path::new("/"), &pool).unwrap();
    let mut kept = Vec::new();
    let mut count = 0;
    for event in scanner {
        let ScanEvent::Item(item) = event else { panic!("{event:?}") };
        count += usize::from(item.key.to_path().starts_with(folder.path().as_os_str().as_bytes()));
        kept.push(item);
        assert!(pool.open_count() <= 8);
    }
    assert_eq!(count, 1 + 280 * 2);
    // Any of them can still be reached, whatever has been closed meanwhile.
    for item in kept.iter().rev() {
        assert_eq!(item.dir.stat(item.name(), item.follow).unwrap().ino, item.stat.ino);
    }
    remove_deep(folder);
}

/// A tree that deep is beyond what the standard library removes by path.
fn remove_deep(folder: tempfile::TempDir) {
    assert!(std::process::Command::new("rm").arg("-rf").arg(folder.keep()).status().unwrap().success());
}

#[test]
fn a_path_beyond_the_format_is_reported_and_the_rest_goes_on() {
    use rustix::fs::{Mode, OFlags, mkdirat, openat};
    let folder = tempfile::tempdir().unwrap();
    let mut fd: rustix::fd::OwnedFd = fs::File::open(folder.path()).unwrap().into();
    let name = [b'n'; 250];
    for _ in 0..265 {
        mkdirat(&fd, &name[..], Mode::from_raw_mode(0o755)).unwrap();
        fd = openat(&fd, &name[..], OFlags::DIRECTORY, Mode::empty()).unwrap();
    }
    fs::create_dir(folder.path().join("z")).unwrap();
    fs::write(folder.path().join("z/last"), b"").unwrap();
    let (items, warnings) = paths(Scanner::new([folder.path()], ScanOptions::default()).unwrap(), folder.path());
    assert!(items.contains(&"/z/last".to_owned()));
    assert_eq!(warnings.iter().map(|(_, kind)| *kind).collect::<Vec<_>>(), [WarningKind::Unsupported]);
    remove_deep(folder);
}

#[test]
fn hard_links_share_a_group_that_the_next_scan_gives_again() {
    let folder = tree(&["a", "d/x", "other"]);
    let root = folder.path();
    fs::hard_link(root.join("a"), root.join("d/b")).unwrap();
    fs::hard_link(root.join("other"), root.join("d/other")).unwrap();
    let groups = || -> Vec<(Vec<u8>, Option<u64>)> {
        let scanner = Scanner::new([root], ScanOptions::default()).unwrap();
        scanner
            .filter_map(|event| match event {
                ScanEvent::Item(item) => Some((item.key.name().to_vec(), item.link_group)),
                ScanEvent::Warning(_) => None,
            })
            .collect()
    };
    let first = groups();
    let of = |name: &[u8]| first.iter().filter(|(n, _)| n == name).map(|(_, group)| *group).collect::<Vec<_>>();
    assert!(of(b"a")[0].is_some());
    assert_eq!(of(b"a"), of(b"b"));
    assert_eq!(of(b"other")[0], of(b"other")[1]);
    assert_ne!(of(b"a")[0], of(b"other")[0]);
    assert_eq!(of(b"x"), [None]);
    assert_eq!(groups(), first);
}

#[test]
fn a_directory_replaced_by_a_link_is_not_followed() {
    let folder = tree(&["d/file", "outside/secret"]);
    let root = folder.path().to_owned();
    let scanner = Scanner::new([&root], ScanOptions::default()).unwrap();
    let mut held = None;
    let mut seen = Vec::new();
    let mut warned = 0;
    for event in scanner {
        match event {
            ScanEvent::Item(item) => {
                let name = item.key.name().to_vec();
                if name == b"outside" {
                    // The listing of the root is over; now `d` is swapped before it is entered.
                    fs::rename(root.join("d"), root.join("moved")).unwrap();
                    std::os::unix::fs::symlink("outside", root.join("d")).unwrap();
                }
                if name == b"d" {
                    held = Some(item.clone());
                }
                seen.push(item.key.to_path());
            }
            ScanEvent::Warning(_) => warned += 1,
        }
    }
    assert_eq!(warned, 1);
    assert!(!seen.iter().any(|path| path.ends_with(b"/d/secret")));
    assert!(held.is_some());
}
