//! OpenSSH's own regression scripts, with our engine in the place of its `sftp-server`.

use crate::served::{run, succeed};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

const REGRESS: &str = "/usr/lib/openssh/regress";

/// Left out: `cp`, which needs copy-data, an extension that is of use only to whoever writes. And `sftp-chroot.sh`, which
/// tests sshd, not its SFTP server; `sftp-uri.sh`, which tests the client's reading of addresses.
#[test]
#[ignore = "a minute of shell scripts"]
fn openssh_regression_scripts() {
    if !Path::new(REGRESS).is_dir() || !Path::new("/usr/sbin/sshd").exists() {
        println!("not tested: openssh-tests and openssh-server are not installed");
        return;
    }
    let server = std::env::current_exe().unwrap().parent().unwrap().with_file_name("examples").join("sftp-stdio");
    assert!(server.exists(), "build the example sftp-stdio first: {}", server.display());
    let folder = tempfile::tempdir().unwrap();
    // The scripts want an executable that takes sftp-server's options, and a folder of sshd's.
    let _ = fs::create_dir("/run/sshd");
    for script in ["sftp", "sftp-cmds", "sftp-badcmds", "sftp-batch", "sftp-glob", "sftp-perm"] {
        let objects = folder.path().join(script);
        fs::create_dir(&objects).unwrap();
        fs::set_permissions(&objects, fs::Permissions::from_mode(0o755)).unwrap();
        let text = fs::read_to_string(format!("{REGRESS}/{script}.sh")).unwrap();
        let copy = folder.path().join(format!("{script}.sh"));
        fs::write(&copy, without_cp(&text)).unwrap();
        let mut command = Command::new("sh");
        command.arg(format!("{REGRESS}/test-exec.sh")).arg(&objects).arg(&copy).current_dir(&objects);
        command.envs([("TEST_SHELL", "sh"), ("TEST_SSH_SSH", "/usr/bin/ssh"), ("TEST_SSH_SSHD", "/usr/sbin/sshd")]);
        command.envs([("TEST_SSH_SFTP", "/usr/bin/sftp"), ("TEST_SSH_UNSAFE_PERMISSIONS", "1")]);
        succeed(&run(command.env("TEST_SSH_SFTPSERVER", &server)));
    }
}

/// A script without the paragraph that begins with `verbose "$tid: cp"`.
fn without_cp(script: &str) -> String {
    let paragraphs = script.split("\n\n").filter(|paragraph| !paragraph.starts_with("verbose \"$tid: cp\""));
    paragraphs.collect::<Vec<_>>().join("\n\n")
}
