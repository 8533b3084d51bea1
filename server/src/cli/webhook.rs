//! `holdfastd webhook` and `holdfastd notice`: who is told by HTTP, and of what, through the API of the running server.

use crate::cli::accounts::{Output, find, print_json};
use crate::cli::tenant::{find_tenant, quoted};
use crate::cli::{CommandError, table};
use crate::config::CommonSettings;
use api::notices::{Notice, NoticeSettings};
use api::page::Page;
use api::webhook::{CreateWebhook, Delivery, EventKind, NewWebhook, QueuedDelivery, Webhook};
use clap::Subcommand;
use serde::Serialize;
use std::io::{self, Write};

#[derive(Subcommand, Debug)]
pub(crate) enum WebhookCommand {
    /// Tell of a tenant and those below it by HTTP. Prints the secret that signs what is sent, once.
    #[command(after_help = "Example:\n  \
        holdfastd webhook add acme https://example.org/hook --events backup_failed,healed")]
    Add {
        /// Name or id of the tenant.
        tenant: String,
        /// Where it goes.
        url: String,
        /// Of what: backup_failed, backup_missed, backup_stale, quota, service_expiring, service_state, healed.
        #[arg(long, value_delimiter = ',', required = true, value_parser = event)]
        events: Vec<EventKind>,
        #[command(flatten)]
        output: Output,
    },
    /// List webhooks, the oldest first.
    List {
        #[command(flatten)]
        output: Output,
    },
    /// Send a test event.
    Test {
        /// Its id.
        webhook: String,
    },
    /// List what was sent to a webhook, the newest first.
    Deliveries {
        /// Its id.
        webhook: String,
        #[command(flatten)]
        output: Output,
    },
    /// Remove a webhook and what is on its way to it.
    Remove {
        /// Its id.
        webhook: String,
    },
}

#[derive(Subcommand, Debug)]
pub(crate) enum NoticeCommand {
    /// List what is wrong, the newest first.
    List {
        /// Also what is over.
        #[arg(long)]
        all: bool,
        #[command(flatten)]
        output: Output,
    },
    /// Tell a tenant's people after so many days without a backup; print how many without a number.
    StaleDays {
        /// Name or id of the tenant.
        tenant: String,
        /// 1 to 365.
        days: Option<i64>,
    },
}

fn event(text: &str) -> Result<EventKind, String> {
    serde_json::from_value(serde_json::Value::String(text.to_owned())).map_err(|_| "is no event".into())
}

fn word(value: &impl Serialize) -> String {
    let value = serde_json::to_value(value).ok();
    value.as_ref().and_then(serde_json::Value::as_str).unwrap_or("-").to_owned()
}

pub(crate) async fn webhook(settings: &CommonSettings, command: WebhookCommand) -> Result<(), CommandError> {
    let server = find(settings)?;
    match command {
        WebhookCommand::Add { tenant, url, events, output } => {
            let tenant = Some(find_tenant(&server, &tenant).await?.id);
            let made: NewWebhook = server.post("/webhooks", &CreateWebhook { tenant, user: None, url, events }).await?;
            if output.json {
                return print_json(&made);
            }
            let mut out = io::stdout().lock();
            writeln!(out, "Webhook {} was made. Its secret, shown this once:\n\n    {}", made.webhook.id, made.secret)?;
        }
        WebhookCommand::List { output } => {
            let (mut items, mut after): (Vec<Webhook>, String) = (Vec::new(), String::new());
            loop {
                let page: Page<Webhook> = server.get(&format!("/webhooks?limit=200{after}")).await?;
                items.extend(page.items);
                match page.next {
                    Some(next) => after = format!("&after={}", quoted(&next)),
                    None => break,
                }
            }
            if output.json {
                return print_json(&items);
            }
            let row = |webhook: &Webhook| {
                vec![
                    webhook.id.clone(),
                    webhook.tenant.clone(),
                    webhook.user.clone().unwrap_or("-".into()),
                    if webhook.active { "active" } else { "paused" }.to_owned(),
                    table::time(webhook.failing_since_ns),
                    webhook.events.iter().map(word).collect::<Vec<_>>().join(","),
                    webhook.url.clone(),
                ]
            };
            let head = ["ID", "TENANT", "USER", "STATE", "FAILING SINCE (UTC)", "EVENTS", "URL"];
            table::print(&head, &items.iter().map(row).collect::<Vec<_>>())?;
        }
        WebhookCommand::Test { webhook } => {
            let queued: QueuedDelivery = server.post(&format!("/webhooks/{}/test", quoted(&webhook)), &()).await?;
            writeln!(
                io::stdout(),
                "Delivery {} waits; `holdfastd webhook deliveries {webhook}` says what becomes of it.",
                queued.id
            )?;
        }
        WebhookCommand::Deliveries { webhook, output } => {
            let page: Page<Delivery> = server.get(&format!("/webhooks/{}/deliveries", quoted(&webhook))).await?;
            if output.json {
                return print_json(&page);
            }
            let row = |delivery: &Delivery| {
                vec![
                    delivery.id.clone(),
                    delivery.event.clone(),
                    word(&delivery.state),
                    delivery.tries.to_string(),
                    table::time(Some(delivery.created_ns)),
                    table::time(delivery.next_try_ns),
                    delivery.last_status.map_or("-".into(), |status| status.to_string()),
                    delivery.last_error.clone().unwrap_or_default(),
                ]
            };
            let head = ["ID", "EVENT", "STATE", "TRIES", "WRITTEN (UTC)", "NEXT TRY (UTC)", "STATUS", "LAST ERROR"];
            table::print(&head, &page.items.iter().map(row).collect::<Vec<_>>())?;
        }
        WebhookCommand::Remove { webhook } => {
            let gone: Webhook = server.delete(&format!("/webhooks/{}", quoted(&webhook))).await?;
            writeln!(io::stdout(), "Webhook {} to {} is removed.", gone.id, gone.url)?;
        }
    }
    Ok(())
}

pub(crate) async fn notice(settings: &CommonSettings, command: NoticeCommand) -> Result<(), CommandError> {
    let server = find(settings)?;
    match command {
        NoticeCommand::List { all, output } => {
            let open = if all { "" } else { "&open=true" };
            let page: Page<Notice> = server.get(&format!("/notices?limit=200{open}")).await?;
            if output.json {
                return print_json(&page);
            }
            let row = |notice: &Notice| {
                vec![
                    word(&notice.kind),
                    table::time(Some(notice.since_ns)),
                    table::time(notice.healed_ns),
                    notice.tenant.clone(),
                    notice.cause.clone(),
                    notice.facts.iter().map(|(name, value)| format!("{name}={value}")).collect::<Vec<_>>().join(" "),
                ]
            };
            let head = ["KIND", "SINCE (UTC)", "OVER (UTC)", "TENANT", "ABOUT", "FACTS"];
            table::print(&head, &page.items.iter().map(row).collect::<Vec<_>>())?;
        }
        NoticeCommand::StaleDays { tenant, days } => {
            let path = format!("/tenants/{}/notice-settings", find_tenant(&server, &tenant).await?.id);
            let settings: NoticeSettings = match days {
                Some(stale_days) => server.put(&path, &NoticeSettings { stale_days }).await?,
                None => server.get(&path).await?,
            };
            writeln!(io::stdout(), "People of {tenant} are told after {} days without a backup.", settings.stale_days)?;
        }
    }
    Ok(())
}
