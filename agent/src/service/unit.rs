//! The unit file with which systemd runs the service.

use crate::config::{CACHE_VARIABLE, CONFIG_VARIABLE, Folders};
use crate::error::EXIT_NOT_ENROLLED;
use std::path::Path;

/// A text as one word of a unit file.
fn word(text: &str) -> String {
    let escaped = text.replace('\\', "\\\\").replace('"', "\\\"").replace('%', "%%").replace('$', "$$");
    format!("\"{escaped}\"")
}

/// The unit for this program with these folders.
pub fn unit(program: &Path, folders: &Folders) -> String {
    let program = word(&program.to_string_lossy());
    let set = |name: &str, path: &Path| format!("Environment={}", word(&format!("{name}={}", path.to_string_lossy())));
    let config = set(CONFIG_VARIABLE, &folders.config);
    let cache = set(CACHE_VARIABLE, &folders.cache);
    format!(
        "[Unit]
Description=Holdfast backup agent
Wants=network-online.target
After=network-online.target

[Service]
ExecStart={program} run
{config}
{cache}
Restart=on-failure
RestartSec=30
RestartPreventExitStatus={EXIT_NOT_ENROLLED}
Nice=10
IOSchedulingClass=best-effort
IOSchedulingPriority=7
NoNewPrivileges=no
KillMode=mixed
TimeoutStopSec=30

[Install]
WantedBy=multi-user.target
"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_stay_one_word_whatever_they_hold() {
        let folders = Folders { config: "/etc/hold fast".into(), cache: "/var/50%\"$x".into() };
        let text = unit(Path::new("/usr/bin/holdfast"), &folders);
        assert!(text.contains("ExecStart=\"/usr/bin/holdfast\" run\n"), "{text}");
        assert!(text.contains("Environment=\"HOLDFAST_CONFIG_DIR=/etc/hold fast\"\n"), "{text}");
        assert!(text.contains("Environment=\"HOLDFAST_CACHE_DIR=/var/50%%\\\"$$x\"\n"), "{text}");
        assert!(text.contains("RestartPreventExitStatus=4"));
    }
}
