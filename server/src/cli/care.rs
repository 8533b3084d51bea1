//! `holdfastd vault damage`, `scrub` and `audit`: all through the API of the running server.

use crate::cli::CommandError;
use crate::cli::accounts::print_json;
use crate::cli::vault::{OneVault, short, vault_id};
use crate::local::LocalServer;
use api::care::{AuditRequest, Audited, Damage, ScrubRequest, Scrubbed};
use api::vault::ClockStatus;
use clap::Args;
use std::io::{self, Write};
use std::time::Duration;

/// The largest vaults take that long.
const AUDIT_TIMEOUT: Duration = Duration::from_secs(24 * 3600);
const SCRUB_TIMEOUT: Duration = Duration::from_secs(600);

#[derive(Args, Debug)]
pub(crate) struct Audit {
    #[command(flatten)]
    vault: OneVault,
    /// Correct everything that differs, not only what could cost data.
    #[arg(long)]
    repair: bool,
}

pub(crate) async fn damage(server: &LocalServer, OneVault { vault, output }: OneVault) -> Result<(), CommandError> {
    let damage: Damage = server.get(&format!("/vaults/{}/damage", vault_id(server, &vault).await?)).await?;
    if output.json {
        return print_json(&damage);
    }
    let mut out = io::stdout().lock();
    if damage.objects == 0 {
        writeln!(out, "Nothing is known to be damaged.")?;
        return Ok(());
    }
    for snapshot in &damage.snapshots {
        for at in &snapshot.paths {
            writeln!(out, "{}  {}: {}", short(&snapshot.snapshot), at.path, at.what)?;
        }
        if snapshot.truncated {
            writeln!(out, "{}  and more", short(&snapshot.snapshot))?;
        }
    }
    let more = if damage.truncated { " More is left out here." } else { "" };
    writeln!(
        out,
        "{} damaged objects reach {} snapshots.{more} The next backup of those files heals what is still the same.",
        damage.objects,
        damage.snapshots.len()
    )?;
    Ok(())
}

pub(crate) async fn scrub(server: &LocalServer, OneVault { vault, output }: OneVault) -> Result<(), CommandError> {
    let path = format!("/vaults/{}/scrub", vault_id(server, &vault).await?);
    let clock: ClockStatus = server.get("/clock").await?;
    let request = ScrubRequest { before_ns: clock.now_ns };
    let zero = Scrubbed { bytes: 0, packs: 0, objects_damaged: 0, packs_damaged: 0, packs_missing: 0, done: false };
    let mut all = zero;
    while !all.done {
        let step: Scrubbed = server.post_and_wait(&path, &request, SCRUB_TIMEOUT).await?;
        all = Scrubbed {
            bytes: all.bytes + step.bytes,
            packs: all.packs + step.packs,
            objects_damaged: all.objects_damaged + step.objects_damaged,
            packs_damaged: all.packs_damaged + step.packs_damaged,
            packs_missing: all.packs_missing + step.packs_missing,
            done: step.done,
        };
    }
    if output.json {
        return print_json(&all);
    }
    let mut out = io::stdout().lock();
    writeln!(out, "{} packs with {} bytes are verified.", all.packs, all.bytes)?;
    if all.objects_damaged + all.packs_damaged + all.packs_missing > 0 {
        writeln!(
            out,
            "Newly found: {} objects damaged, {} packs damaged, {} packs missing; `holdfastd vault damage` names \
             snapshots and files.",
            all.objects_damaged, all.packs_damaged, all.packs_missing
        )?;
    }
    Ok(())
}

pub(crate) async fn audit(server: &LocalServer, Audit { vault, repair }: Audit) -> Result<(), CommandError> {
    let OneVault { vault, output } = vault;
    let path = format!("/vaults/{}/audit", vault_id(server, &vault).await?);
    let found: Audited = server.post_and_wait(&path, &AuditRequest { repair }, AUDIT_TIMEOUT).await?;
    if output.json {
        return print_json(&found);
    }
    let mut out = io::stdout().lock();
    for line in &found.lines {
        writeln!(out, "{line}")?;
    }
    writeln!(
        out,
        "{} objects, {} nodes and {} references counted: {} counts too low (corrected), {} too high, {} objects \
         missing, {} nodes unreadable, {} byte counts wrong.",
        found.objects,
        found.nodes,
        found.references,
        found.too_low,
        found.too_high,
        found.missing,
        found.unreadable_nodes,
        found.miscounted
    )?;
    Ok(())
}
