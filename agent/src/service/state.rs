//! What the service keeps on disk, so that it knows its plans while the server is away, and runs no slot twice.

use crate::config::{Folders, private_folder, replace_file};
use crate::error::AgentError;
use api::agents::ComputerPlans;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::PathBuf;

/// Plans, and up to which slot each was run.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServiceState {
    /// The computer it belongs to; the state of another one is not used.
    #[serde(default)]
    pub computer: String,
    /// As last heard from the server.
    #[serde(default)]
    pub plans: ComputerPlans,
    /// By plan: slots up to this moment are seen to, nanoseconds since 1970.
    #[serde(default)]
    pub seen_ns: BTreeMap<String, i64>,
}

fn file(folders: &Folders) -> PathBuf {
    folders.config.join("service.json")
}

impl ServiceState {
    /// What was kept for this computer; nothing when it cannot be read, since the server knows it all.
    pub fn load(folders: &Folders, computer: &str) -> Self {
        let text = std::fs::read(file(folders)).unwrap_or_default();
        match serde_json::from_slice::<ServiceState>(&text) {
            Ok(state) if state.computer == computer => state,
            _ => ServiceState { computer: computer.to_owned(), ..ServiceState::default() },
        }
    }

    /// Keeps it.
    pub fn save(&self, folders: &Folders) -> Result<(), AgentError> {
        let path = file(folders);
        let text = serde_json::to_vec(self)
            .map_err(|error| AgentError::BadFile { path: path.clone(), detail: error.to_string() })?;
        private_folder(&folders.config)?;
        replace_file(&path, &text)
    }

    /// New plans from the server; what is known of plans that are gone is forgotten.
    pub fn take(&mut self, plans: ComputerPlans) {
        self.seen_ns.retain(|id, _| plans.plans.iter().any(|plan| plan.id == *id));
        for plan in &plans.plans {
            let seen_ns = self.seen_ns.entry(plan.id.clone()).or_insert(plan.seen_ns);
            *seen_ns = plan.seen_ns.max(*seen_ns);
        }
        self.plans = plans;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use api::agents::ComputerPlan;

    fn plans(version: i64, seen: &[(&str, i64)]) -> ComputerPlans {
        let plan = |(id, seen_ns): &(&str, i64)| ComputerPlan {
            id: (*id).to_owned(),
            name: "p".into(),
            enabled: true,
            revision: 1,
            seen_ns: *seen_ns,
            body: serde_json::from_str(
                r#"{"source":{"kind":"sqlite","path":"/a"},"schedule":{"rule":{"every":"never"}}}"#,
            )
            .unwrap(),
        };
        ComputerPlans { version, plans: seen.iter().map(plan).collect() }
    }

    #[test]
    fn what_was_seen_to_is_never_forgotten_and_never_another_computers() {
        let folder = tempfile::tempdir().unwrap();
        let folders = Folders { config: folder.path().join("c"), cache: folder.path().join("k") };
        let mut state = ServiceState::load(&folders, "one");
        state.take(plans(1, &[("a", 10), ("b", 20)]));
        state.seen_ns.insert("a".into(), 50);
        state.save(&folders).unwrap();
        let mut read = ServiceState::load(&folders, "one");
        assert_eq!(read, state);
        read.take(plans(2, &[("a", 30)]));
        assert_eq!(read.seen_ns.into_iter().collect::<Vec<_>>(), [("a".to_owned(), 50)]);
        assert!(ServiceState::load(&folders, "other").seen_ns.is_empty());
    }
}
