//! The page that brings a server's data back when the server is gone (OB-3).

use crate::config::MasterKeySource;
use crate::data_folder::DataFolder;
use repo_format::FormatError;
use repo_format::keyring::MasterKey;
use std::fmt::Write;
use zeroize::Zeroizing;

/// The sheet, ready to print. It holds the master key: it goes to standard output and nowhere else.
pub fn recovery_sheet(
    key: &MasterKey,
    source: &MasterKeySource,
    folder: &DataFolder,
) -> Result<Zeroizing<String>, FormatError> {
    let text = key.to_text()?;
    let root = folder.root().display();
    let place = match source {
        MasterKeySource::File(path) => format!("the file {}", path.display()),
        MasterKeySource::Environment(_) => format!("the environment variable {}", crate::config::MASTER_KEY_VARIABLE),
        MasterKeySource::Command(_) => "the master key command".into(),
    };
    let mut sheet = Zeroizing::new(String::with_capacity(4096));
    let line = "=".repeat(78);
    // Writing to a string cannot fail.
    let _ = writeln!(sheet, "{line}\nHOLDFAST RECOVERY SHEET      print it, keep it away from the server\n{line}\n");
    let _ = writeln!(sheet, "Master key (without it NOTHING in any backup can be read, by anyone):\n");
    let groups: Vec<&str> = text.split('-').collect();
    for row in groups.chunks(7) {
        let _ = writeln!(sheet, "    {}", row.join("-"));
    }
    let _ = writeln!(sheet, "\nFingerprint (tells keys apart, no secret):\n\n    {}\n", key.fingerprint());
    let _ = writeln!(
        sheet,
        "Letters may be typed in either case, with or without dashes and spaces. The last\n\
         letters are a check code: a typing error is found.\n\n\
         What else to keep, away from this machine:\n\
         \x20 {root}/store   packs, journals and keyring: the backups themselves\n\
         \x20 {root}/accounts.sqlite   customers, users, vaults and tokens\n\n\
         To bring a lost server back: install holdfastd, copy the data folder, put the\n\
         master key into {place}, run `holdfastd rebuild-index`,\n\
         then `holdfastd serve`.\n\n\
         When it is on paper:       holdfastd master-key confirm      (it asks for the key)\n\
         To check a copy:           holdfastd master-key verify FILE\n\
         To print this page again:  holdfastd master-key show-sheet\n{line}"
    );
    Ok(sheet)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_key_on_the_sheet_is_the_key() {
        let key = MasterKey::from_bytes([7; 32]);
        let folder = DataFolder::new("/data".into());
        let sheet = recovery_sheet(&key, &MasterKeySource::File(folder.master_key()), &folder).unwrap();
        let typed: String =
            sheet.lines().filter(|line| line.starts_with("    ") && line.matches('-').count() >= 6).collect();
        assert_eq!(MasterKey::from_text(&typed).unwrap().expose(), key.expose());
        assert!(sheet.contains(&key.fingerprint()));
        assert!(sheet.lines().all(|line| line.len() <= 100), "one page wide");
        assert!(sheet.lines().count() <= 50, "one page long");
    }
}
