//! Whether accounts and store agree, and putting right what a crash left half done. Keys are made before a vault is
//! entered, and a deletion is decided in the store before the accounts forget: so each difference says what was under
//! way. What holds data is never destroyed here.

use crate::app::auth::server_actor;
use crate::app::engine::on_store;
use crate::app::quota::{limit_id, limits};
use crate::app::{App, AppError, OperatorGrant};
use repo_format::id::VaultId;
use std::collections::BTreeSet;
use std::sync::Arc;
use store::{Limits, VaultState};

/// A difference between accounts and store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Difference {
    /// What kind, as a word.
    pub kind: &'static str,
    /// Kind and id of what it is about.
    pub object: String,
    /// What it is, and the way out.
    pub detail: String,
    /// Whether it was put right just now.
    pub repaired: bool,
}

fn found(kind: &'static str, object: String, detail: &str, repaired: bool) -> Difference {
    Difference { kind, object, detail: detail.to_owned(), repaired }
}

impl App {
    /// Looks for differences; with `repair` puts right what can be.
    pub async fn check_accounts(self: &Arc<Self>, _: OperatorGrant, repair: bool) -> Result<Vec<Difference>, AppError> {
        let mut differences = Vec::new();
        {
            // Nothing is being made meanwhile.
            let _one_at_a_time = self.creation.lock().await;
            self.check_vaults(repair, &mut differences).await?;
            self.check_allocations(repair, &mut differences).await?;
            self.check_quotas(repair, &mut differences).await?;
        }
        self.check_removals(repair, &mut differences).await?;
        Ok(differences)
    }

    async fn check_vaults(self: &Arc<Self>, repair: bool, out: &mut Vec<Difference>) -> Result<(), AppError> {
        let states = on_store(&self.store, |store| store.vault_states()).await?;
        let known: BTreeSet<VaultId> = self.control.vaults().await?.into_iter().map(|vault| vault.id).collect();
        for (vault, state) in &states {
            let object = format!("vault {vault}");
            if *state == VaultState::Deleting {
                if repair {
                    self.resume_deletions().await;
                }
                // What still hinders it is in the log.
                let repaired = repair && !self.store.pending_deletions().contains(vault);
                out.push(found("half_done_deletion", object, "its deletion was decided and is not finished", repaired));
            } else if !known.contains(vault) {
                let is_empty = match self.vault_usage(*vault).await {
                    Ok(usage) => usage.objects == 0 && usage.snapshots == 0,
                    Err(_) => false,
                };
                if is_empty {
                    if repair {
                        self.carry_out_deletion(*vault, vault.to_string()).await?;
                    }
                    let detail = "it has keys and nothing in it, and nobody's account names it";
                    out.push(found("keys_without_vault", object, detail, repair));
                } else {
                    let detail = "it holds data, and nobody's account names it: the accounts may have been restored from an \
                                  older backup; it stays until somebody deletes it";
                    out.push(found("data_without_account", object, detail, false));
                }
            }
        }
        for vault in known.iter().filter(|vault| !states.contains_key(vault)) {
            let detail = "an account names it, and the store has neither its key nor its files: restore them from a \
                          backup, or delete the vault";
            out.push(found("vault_without_keys", format!("vault {vault}"), detail, false));
        }
        for receipt in self.control.open_receipts().await? {
            if states.contains_key(&receipt.vault) || known.contains(&receipt.vault) {
                continue;
            }
            if repair {
                let now_ns = self.clock.now_ns();
                self.control.finish_receipt(&server_actor(), &receipt.vault, None, now_ns).await?;
            }
            let detail = "it is destroyed, and the proof of it was not finished";
            out.push(found("open_receipt", format!("vault {}", receipt.vault), detail, repair));
        }
        Ok(())
    }

    async fn check_allocations(&self, repair: bool, out: &mut Vec<Difference>) -> Result<(), AppError> {
        for user in self.control.users_without_vault().await? {
            if repair {
                let vault = self.make_vault().await?;
                kill_point!(FirstVaultKeysMade);
                if self.control.enter_first_vault(&user, &vault, self.clock.now_ns()).await? {
                    kill_point!(FirstVaultEntered);
                    self.push_quota_chain(&vault).await?;
                }
            }
            let detail = "it was given a part of a service and has no vault";
            out.push(found("allocation_without_vault", format!("user {user}"), detail, repair));
        }
        Ok(())
    }

    async fn check_quotas(&self, repair: bool, out: &mut Vec<Difference>) -> Result<(), AppError> {
        let mut differ = false;
        let mut named = BTreeSet::new();
        for quota in self.control.quotas().await? {
            let limit = limit_id(&quota.scope);
            if self.store.quota(&limit).limits != limits(&quota.limits) {
                differ = true;
                let detail = "the store goes by another limit than the accounts say";
                out.push(found("quota_differs", format!("limit {limit}"), detail, repair));
            }
            named.insert(limit);
        }
        for (limit, reading) in self.store.quotas() {
            if reading.limits != Limits::default() && !named.contains(&limit) {
                if repair {
                    self.store.set_limit(limit.clone(), Limits::default());
                }
                let detail = "the store goes by a limit of which the accounts do not know";
                out.push(found("quota_differs", format!("limit {limit}"), detail, repair));
            }
        }
        for (vault, chain) in self.control.quota_chains().await? {
            let counted = self.store.vault_quotas(&vault).into_iter().map(|(limit, _)| limit);
            if !counted.eq(chain.iter().map(limit_id)) {
                differ = true;
                let detail = "the store counts it under other limits than the accounts say";
                out.push(found("quota_chain_differs", format!("vault {vault}"), detail, repair));
            }
        }
        if differ && repair {
            self.push_quotas().await?;
        }
        Ok(())
    }

    async fn check_removals(self: &Arc<Self>, repair: bool, out: &mut Vec<Difference>) -> Result<(), AppError> {
        let due = self.removals_due().await?;
        if due.is_empty() {
            return Ok(());
        }
        if repair {
            self.advance_business().await?;
        }
        let left = if repair { self.removals_due().await? } else { due.clone() };
        let difference = |one: (String, &str)| {
            let repaired = !left.contains(&one);
            found("removal_due", one.0, one.1, repaired)
        };
        out.extend(due.into_iter().map(difference));
        Ok(())
    }

    /// What the clock is to destroy and has not, with the reason.
    async fn removals_due(&self) -> Result<Vec<(String, &'static str)>, AppError> {
        let now_ns = self.clock.now_ns();
        let mut due = Vec::new();
        for doomed in self.control.vaults_of_terminated_services().await? {
            due.push((format!("vault {}", doomed.vault), "its service is terminated, and it is still there"));
        }
        for user in self.control.users_to_destroy(now_ns).await? {
            due.push((format!("user {user}"), "its time of grace is over, and it is still there"));
        }
        for tenant in self.control.tenants_being_destroyed(now_ns).await? {
            due.push((format!("tenant {tenant}"), "its time of grace is over, and it is still there"));
        }
        Ok(due)
    }
}
