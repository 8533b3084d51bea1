//! A logged-in server: the client, the vault, and the vault's keys.

use crate::client::{Client, Patience};
use crate::config::{Folders, Login};
use crate::error::AgentError;
use crate::nodes::ServerNodes;
use crate::stop::{Cancel, Stop};
use crate::transport::HttpTransport;
use api::browse::Snapshot;
use repo_format::id::NodeId;
use repo_format::keys::IdKeys;
use std::sync::Arc;

/// Everything a command needs to work with one vault.
pub struct Connection {
    /// Typed calls.
    pub client: Client,
    /// Vault id, hexadecimal.
    pub vault: String,
    /// Keys for ids and cuts.
    pub keys: Arc<IdKeys>,
    /// The stored login.
    pub login: Login,
    /// Configuration and cache.
    pub folders: Folders,
    /// Stops what runs over this connection.
    pub cancel: Cancel,
}

impl Connection {
    /// To the server of the stored login. `upload_limit` in bytes per second.
    pub fn open(folders: Folders, patience: Patience, upload_limit: Option<u64>) -> Result<Self, AgentError> {
        let login = Login::load(&folders)?;
        let transport = HttpTransport::new(&login.url, &login.trust()?, Some(login.token()), upload_limit)
            .map_err(|error| AgentError::Usage(error.to_string()))?;
        let client = Client::new(Arc::new(transport), patience, Stop::default());
        Self::with_client(client, login, folders)
    }

    /// Over a client that exists already.
    pub fn with_client(client: Client, login: Login, folders: Folders) -> Result<Self, AgentError> {
        let vault = login.vault.clone();
        let keys = Arc::new(client.keys(&vault)?);
        Ok(Connection { client, vault, keys, login, folders, cancel: Cancel::default() })
    }

    /// The vault's nodes.
    pub fn nodes(&self) -> ServerNodes {
        ServerNodes::new(self.client.clone(), self.vault.clone(), self.keys.clone())
    }

    /// Snapshots that can be read and built on, oldest first: all but deleted ones.
    pub fn readable_snapshots(&self) -> Result<Vec<Snapshot>, AgentError> {
        let mut snapshots = self.snapshots()?;
        snapshots.retain(|snapshot| snapshot.deleted.is_none());
        Ok(snapshots)
    }

    /// All snapshots, deleted ones included, oldest first.
    pub fn snapshots(&self) -> Result<Vec<Snapshot>, AgentError> {
        Ok(self.client.snapshots(&self.vault)?)
    }
}

/// The root node of a snapshot.
pub fn root_of(snapshot: &Snapshot) -> Result<NodeId, AgentError> {
    Ok(snapshot.root.parse()?)
}

/// The name of this computer.
pub fn computer_name() -> String {
    let uname = rustix::system::uname();
    let name = uname.nodename().to_string_lossy();
    if name.is_empty() { "computer".to_owned() } else { name.into_owned() }
}
