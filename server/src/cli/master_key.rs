//! `holdfastd master-key`: the sheet, its confirmation, checking copies, changing the key.

use crate::cli::CommandError;
use crate::config::{CommonSettings, MasterKeySource};
use crate::data_folder::DataFolder;
use crate::local::{LocalError, LocalServer};
use crate::master_key;
use crate::recovery_sheet::recovery_sheet;
use api::accounts::{ConfirmMasterKey, MasterKeyState};
use clap::Subcommand;
use repo_format::keyring::MasterKey;
use std::io::{self, BufRead, IsTerminal, Write};
use std::path::PathBuf;
use zeroize::Zeroizing;

#[derive(Subcommand, Debug)]
pub(crate) enum MasterKeyCommand {
    /// Type the master key in from the printed sheet (or pipe it in), so that the server knows that it is on paper.
    Confirm,
    /// Check that a file holds the master key that opens this server's keyring.
    Verify {
        /// The file, in the form of the sheet.
        file: PathBuf,
    },
    /// Replace the master key by a new one and print the new sheet (needs the server stopped).
    Rotate,
    /// Print the recovery sheet again.
    ShowSheet,
}

pub(crate) async fn master_key(settings: &CommonSettings, command: MasterKeyCommand) -> Result<(), CommandError> {
    match command {
        MasterKeyCommand::Confirm => confirm(settings).await,
        MasterKeyCommand::Verify { file } => verify(settings, &file),
        MasterKeyCommand::Rotate => rotate(settings).await,
        MasterKeyCommand::ShowSheet => show_sheet(settings),
    }
}

fn show_sheet(settings: &CommonSettings) -> Result<(), CommandError> {
    let folder = DataFolder::new(settings.data.clone());
    print_sheet(&master_key::load(&settings.master_key)?, &settings.master_key, &folder)
}

fn print_sheet(key: &MasterKey, source: &MasterKeySource, folder: &DataFolder) -> Result<(), CommandError> {
    let sheet = recovery_sheet(key, source, folder).map_err(|error| CommandError::Refused(error.to_string()))?;
    io::stdout().write_all(sheet.as_bytes())?;
    Ok(())
}

async fn confirm(settings: &CommonSettings) -> Result<(), CommandError> {
    if io::stdin().is_terminal() {
        writeln!(io::stderr(), "Type the master key from the printed sheet, then an empty line:")?;
    }
    let mut text = Zeroizing::new(String::new());
    for line in io::stdin().lock().lines() {
        let line = Zeroizing::new(line?);
        if line.trim().is_empty() && !text.trim().is_empty() {
            break;
        }
        text.push_str(&line);
        text.push('\n');
    }
    let typed = master_key::parse(&text, "what was typed")?;
    let fingerprint = typed.fingerprint();
    let folder = DataFolder::new(settings.data.clone());
    match LocalServer::find(&folder, None) {
        Ok(server) => {
            let confirm = ConfirmMasterKey { fingerprint: fingerprint.clone() };
            let _: MasterKeyState = server.post("/master-key/confirm", &confirm).await?;
        }
        Err(LocalError::NotRunning(_)) => {
            if master_key::load(&settings.master_key)?.fingerprint() != fingerprint {
                return Err(CommandError::Refused("what was typed is a master key, but not this server's".into()));
            }
            crate::run::confirm_offline(settings, &fingerprint).await?;
        }
        Err(error) => return Err(error.into()),
    }
    writeln!(io::stdout(), "The master key with the fingerprint {fingerprint} is confirmed.")?;
    Ok(())
}

fn verify(settings: &CommonSettings, file: &std::path::Path) -> Result<(), CommandError> {
    let key = master_key::read_file(file, false)?;
    let folder = DataFolder::new(settings.data.clone());
    let vaults = crate::run::check_keyring(&folder, &key)?;
    let fingerprint = key.fingerprint();
    let file = file.display();
    writeln!(io::stdout(), "{file} opens this server's keyring ({vaults} vaults); fingerprint {fingerprint}.")?;
    Ok(())
}

async fn rotate(settings: &CommonSettings) -> Result<(), CommandError> {
    let MasterKeySource::File(path) = &settings.master_key else {
        return Err(CommandError::Refused(
            "the master key comes from the environment or a command; rotate works on a key file: put the key into \
             a file, run with --master-key-file, and give the new key to where the old one came from"
                .into(),
        ));
    };
    let folder = DataFolder::new(settings.data.clone());
    let new = crate::run::rotate_master_key(settings, path).await?;
    print_sheet(&new, &settings.master_key, &folder)
}
