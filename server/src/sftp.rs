//! The SFTP server of exports: its keys, its listener, and its end.

use crate::app::App;
use crate::app::exports::{ExportAccounts, ExportObserver, SftpDoor};
use crate::data_folder::{DataFolder, DataFolderError, write_private};
use crate::metrics::Metrics;
use sftp_gateway::keys::{HostKeys, KeyError};
use sftp_gateway::{Gateway, GatewayConfig};
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

/// Why there is no SFTP server.
#[derive(Debug, thiserror::Error)]
pub enum SftpError {
    /// The host keys cannot be read or used.
    #[error("{path}: {reason}")]
    HostKeys {
        /// The file.
        path: PathBuf,
        /// Why.
        reason: String,
    },
    /// The data folder.
    #[error(transparent)]
    Folder(#[from] DataFolderError),
    /// The gateway.
    #[error(transparent)]
    Keys(#[from] KeyError),
    /// `sftp_public` is not HOST:PORT.
    #[error("sftp_public: must be HOST:PORT")]
    Public,
}

/// The running SFTP server.
pub(crate) struct SftpServer {
    gateway: Arc<Gateway>,
    task: JoinHandle<()>,
}

/// Keys are made once, and are then those by which everybody knows the server.
fn host_keys(folder: &DataFolder) -> Result<HostKeys, SftpError> {
    let path = folder.ssh_host_keys();
    match std::fs::read_to_string(&path) {
        Ok(text) => HostKeys::from_text(&text)
            .map_err(|error| SftpError::HostKeys { path, reason: format!("{error}; put the file back from a backup") }),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let keys = HostKeys::generate()?;
            write_private(&path, keys.text().as_bytes())?;
            Ok(keys)
        }
        Err(error) => Err(SftpError::HostKeys { path, reason: error.to_string() }),
    }
}

/// Where people reach it: as the settings say, or the host of the public URL.
fn public(named: Option<&str>, url: &str, bound: SocketAddr) -> Result<(String, u16), SftpError> {
    let trimmed = |host: &str| host.trim_start_matches('[').trim_end_matches(']').to_owned();
    if let Some(named) = named {
        let (host, port) = named.rsplit_once(':').ok_or(SftpError::Public)?;
        let port = port.parse().map_err(|_| SftpError::Public)?;
        return if host.is_empty() { Err(SftpError::Public) } else { Ok((trimmed(host), port)) };
    }
    let authority = url.trim_start_matches("https://").split('/').next().unwrap_or_default();
    let host = match authority.strip_prefix('[') {
        Some(rest) => rest.split(']').next().unwrap_or_default(),
        None => authority.split(':').next().unwrap_or_default(),
    };
    Ok((host.to_owned(), bound.port()))
}

impl SftpServer {
    /// Takes connections from now on.
    pub(crate) fn start(
        app: &Arc<App>,
        metrics: Metrics,
        folder: &DataFolder,
        (listener, bound): (TcpListener, SocketAddr),
        named: Option<&str>,
    ) -> Result<SftpServer, SftpError> {
        let keys = host_keys(folder)?;
        let (host, port) = public(named, &app.public_url, bound)?;
        let host_keys = keys.public().to_vec();
        let accounts = Arc::new(ExportAccounts(Arc::downgrade(app)));
        let observer = Arc::new(ExportObserver::start(app, metrics));
        let gateway = Arc::new(Gateway::new(GatewayConfig::new(keys), accounts, observer)?);
        app.set_sftp_door(SftpDoor { host, port, host_keys, gateway: gateway.clone() });
        let serving = gateway.clone();
        let task = tokio::spawn(async move { serving.serve(listener).await });
        Ok(SftpServer { gateway, task })
    }

    /// No new connections; transfers have until `within`.
    pub(crate) async fn end(self, within: Duration) {
        self.gateway.drain(within).await;
        if self.task.await.is_err() {
            tracing::error!("the SFTP server ended by a defect");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn people_reach_it_where_the_settings_say() {
        let bound = "0.0.0.0:2222".parse().unwrap();
        let reached = |named, url| public(named, url, bound).ok();
        assert_eq!(reached(None, "https://backup.example:8440"), Some(("backup.example".into(), 2222)));
        assert_eq!(reached(None, "https://[2001:db8::1]:8440/x"), Some(("2001:db8::1".into(), 2222)));
        assert_eq!(reached(Some("files.example:22"), "https://a"), Some(("files.example".into(), 22)));
        assert_eq!(reached(Some("[2001:db8::1]:22"), "https://a"), Some(("2001:db8::1".into(), 22)));
        for wrong in ["files.example", ":22", "files.example:ssh"] {
            assert_eq!(reached(Some(wrong), "https://a"), None, "{wrong}");
        }
    }
}
