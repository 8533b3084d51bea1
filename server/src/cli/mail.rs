//! `holdfastd mail`: whether mails go out, through the API of the running server.

use crate::cli::accounts::{Output, find, print_json};
use crate::cli::{CommandError, table};
use crate::config::CommonSettings;
use api::outbox::{OutboxMail, QueuedMail, TestMail};
use api::page::Page;
use clap::Subcommand;
use std::io::{self, Write};

#[derive(Subcommand, Debug)]
pub(crate) enum MailCommand {
    /// Send a mail that says that mail works.
    #[command(after_help = "Example:\n  holdfastd mail test me@example.org\n  holdfastd mail list --state queued")]
    Test {
        /// To whom.
        address: String,
        /// Language: en, de, pl or pt.
        #[arg(long, value_name = "TAG")]
        locale: Option<String>,
        #[command(flatten)]
        output: Output,
    },
    /// List the newest mails; never what they say.
    List {
        /// Only those in this state: queued, sent, failed or cancelled.
        #[arg(long, value_name = "STATE")]
        state: Option<String>,
        /// At most so many, up to 200.
        #[arg(long, default_value_t = 50)]
        limit: u32,
        #[command(flatten)]
        output: Output,
    },
    /// Try a waiting mail at once.
    Retry {
        /// Its id.
        id: String,
    },
    /// Take a waiting mail back.
    Cancel {
        /// Its id.
        id: String,
    },
}

fn print(mails: &[OutboxMail]) -> io::Result<()> {
    let row = |mail: &OutboxMail| {
        let state = serde_json::to_value(mail.state).ok();
        let state = state.as_ref().and_then(serde_json::Value::as_str).unwrap_or_default().to_owned();
        vec![
            mail.id.clone(),
            table::time(Some(mail.created_ns)),
            state,
            mail.tries.to_string(),
            table::time(mail.next_try_ns),
            mail.template.clone(),
            mail.address.clone(),
            mail.last_error.clone().unwrap_or_default(),
        ]
    };
    let rows: Vec<_> = mails.iter().map(row).collect();
    table::print(&["ID", "WRITTEN (UTC)", "STATE", "TRIES", "NEXT TRY (UTC)", "MAIL", "TO", "LAST ANSWER"], &rows)
}

pub(crate) async fn mail(settings: &CommonSettings, command: MailCommand) -> Result<(), CommandError> {
    let server = find(settings)?;
    match command {
        MailCommand::Test { address, locale, output } => {
            let queued: QueuedMail = server.post("/outbox/test", &TestMail { to: address, locale }).await?;
            if output.json {
                return print_json(&queued);
            }
            writeln!(io::stdout(), "Mail {} waits; `holdfastd mail list` says what becomes of it.", queued.id)?;
        }
        MailCommand::List { state, limit, output } => {
            let state = state.map(|state| format!("&state={state}")).unwrap_or_default();
            let page: Page<OutboxMail> = server.get(&format!("/outbox?limit={limit}{state}")).await?;
            if output.json {
                return print_json(&page);
            }
            print(&page.items)?;
        }
        MailCommand::Retry { id } => {
            let mail: OutboxMail = server.post(&format!("/outbox/{id}/retry"), &()).await?;
            print(&[mail])?;
        }
        MailCommand::Cancel { id } => {
            let mail: OutboxMail = server.post(&format!("/outbox/{id}/cancel"), &()).await?;
            print(&[mail])?;
        }
    }
    Ok(())
}
