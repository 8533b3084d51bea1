//! `holdfastd accounts check`: whether accounts and store agree, through the API of the running server.

use crate::cli::accounts::{Output, find, print_json};
use crate::cli::{CommandError, table};
use crate::config::CommonSettings;
use api::removal::{AccountsCheck, AccountsDifference};
use clap::Subcommand;
use std::io::{self, Write};

#[derive(Subcommand, Debug)]
pub(crate) enum AccountsCommand {
    /// Look for differences between accounts and store. Fails when there are any that are not put right.
    #[command(after_help = "Examples:\n  holdfastd accounts check\n  holdfastd accounts check --repair")]
    Check {
        /// Put right what a crash left half done. What holds data stays.
        #[arg(long)]
        repair: bool,
        #[command(flatten)]
        output: Output,
    },
}

pub(crate) async fn accounts(settings: &CommonSettings, command: AccountsCommand) -> Result<(), CommandError> {
    let AccountsCommand::Check { repair, output } = command;
    let server = find(settings)?;
    let checked: AccountsCheck = match repair {
        true => server.post("/accounts/repair", &()).await?,
        false => server.get("/accounts/check").await?,
    };
    let left = checked.items.iter().filter(|difference| !difference.repaired).count();
    if output.json {
        print_json(&checked)?;
    } else if checked.items.is_empty() {
        writeln!(io::stdout(), "Accounts and store agree.")?;
    } else {
        let row = |difference: &AccountsDifference| {
            let state = if difference.repaired { "put right" } else { "" };
            vec![difference.kind.clone(), difference.object.clone(), difference.detail.clone(), state.to_owned()]
        };
        table::print(&["DIFFERENCE", "OF", "WHAT IT IS", ""], &checked.items.iter().map(row).collect::<Vec<_>>())?;
    }
    match left {
        0 => Ok(()),
        _ => Err(CommandError::Refused(format!("{left} differences are left"))),
    }
}
