//! OpenSSH's own clients.

use crate::served::{MODIFIED, Served, run, succeed};
use sftp_gateway::Event;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::process::Command;

#[test]
fn sftp_lists_and_downloads() {
    let served = Served::new();
    let dump = served.put("/2026-03-25/shop.dump", 40 << 20);
    served.put("/empty.dump", 0);
    let listing = succeed(&served.sftp(&[], "ls -l /\nls -l /2026-03-25\ndf -h /\npwd\n"));
    assert!(listing.contains("dr-xr-xr-x"), "{listing}");
    assert!(listing.contains("-r--r--r--    ? tenant   export   41943040 Mar 25 "), "{listing}");
    assert!(listing.contains("Remote working directory: /\n"), "{listing}");

    succeed(&served.sftp(&["-p"], "get /2026-03-25/shop.dump got\nget empty.dump\n"));
    assert!(fs::read(served.path("got")).unwrap() == dump);
    assert_eq!(fs::metadata(served.path("got")).unwrap().mtime(), i64::from(MODIFIED));
    assert_eq!(fs::metadata(served.path("empty.dump")).unwrap().len(), 0);

    let closed = served.events.wait("the dump closed", |event| match event {
        Event::Closed { file, .. } if file.size > 0 => Some(file.clone()),
        _ => None,
    });
    assert!(closed.complete, "{closed:?}");
    assert_eq!((closed.bytes_read, closed.bytes_covered), (40 << 20, 40 << 20));
}

#[test]
fn sftp_resumes() {
    let served = Served::new();
    let dump = served.put("/shop.dump", 5_000_000);
    fs::write(served.path("shop.dump"), &dump[..1_234_567]).unwrap();
    succeed(&served.sftp(&[], "reget shop.dump\n"));
    assert!(fs::read(served.path("shop.dump")).unwrap() == dump);
    let covered = served.events.wait("the rest read", |event| match event {
        Event::Closed { file, .. } => Some((file.bytes_covered, file.complete)),
        _ => None,
    });
    assert_eq!(covered, (5_000_000 - 1_234_567, false));
}

#[test]
fn scp_in_both_modes() {
    let served = Served::new();
    let dump = served.put("/a b/shop.dump", 3_000_000);
    let second = served.put("/a b/c/other.dump", 70_000);
    for mode in ["-s", "-O"] {
        let port = format!("{}", served.port);
        let target = served.text(&format!("got{mode}"));
        let from = format!("{}:/a b", served.host());
        let from = if mode == "-O" { from.replace(' ', "\\ ") } else { from };
        let mut command = Command::new("scp");
        command.args(served.ssh_options()).args([mode, "-P", &port, "-r", "-p", &from, &target]);
        succeed(&run(&mut command));
        let file = served.path(&format!("got{mode}/shop.dump"));
        assert!(fs::read(&file).unwrap() == dump, "{mode}");
        assert_eq!(fs::metadata(&file).unwrap().mtime(), i64::from(MODIFIED), "{mode}");
        assert!(fs::read(served.path(&format!("got{mode}/c/other.dump"))).unwrap() == second, "{mode}");

        let missing = format!("{}:/nothing", served.host());
        let mut command = Command::new("scp");
        command.args(served.ssh_options()).args([mode, "-P", &port, &missing, &target]);
        let output = run(&mut command);
        assert!(!output.status.success());
        assert!(String::from_utf8_lossy(&output.stderr).contains("No such file"), "{output:?}");
    }
}
