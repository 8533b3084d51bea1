//! `holdfastd quota`: what vaults, users, customers and partners may use, through the API of the running server.

use crate::cli::accounts::{Output, find, print_json};
use crate::cli::{CommandError, table};
use crate::config::CommonSettings;
use api::quota::{Quota, QuotaLimits, Quotas, SetPartner};
use clap::{Args, Subcommand};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use std::io::{self, Write};
use std::str::FromStr;

#[derive(Subcommand, Debug)]
pub(crate) enum QuotaCommand {
    /// Set limits; those not named stay as they are. In force at once, nothing stored is taken away.
    #[command(after_help = "Examples:\n  \
        holdfastd quota set user:anna --physical 500GiB --physical-soft 450GiB\n  \
        holdfastd quota set customer:acme --physical 10TiB --logical none")]
    Set(Box<SetQuota>),
    /// Show a limit and where it stands, or all that are set.
    #[command(after_help = "Examples:\n  holdfastd quota show\n  holdfastd quota show customer:acme --json")]
    Show {
        /// vault:ID, user:CUSTOMER/USER (or user:USER), customer:NAME or partner:NAME.
        limit: Option<String>,
        #[command(flatten)]
        output: Output,
    },
    /// Say which partner brought a customer: its vaults count under the limit partner:NAME as well.
    Partner {
        /// Name of the customer.
        customer: String,
        /// Name of the partner.
        #[arg(required_unless_present = "none", conflicts_with = "none")]
        partner: Option<String>,
        /// Nobody did.
        #[arg(long)]
        none: bool,
    },
}

#[derive(Args, Debug)]
pub(crate) struct SetQuota {
    /// vault:ID, user:CUSTOMER/USER (or user:USER), customer:NAME or partner:NAME.
    limit: String,
    /// Most bytes stored (deduplicated, compressed), such as 10GiB, or `none`.
    #[arg(long, value_name = "SIZE")]
    physical: Option<Bound>,
    /// Give notice above this many bytes stored.
    #[arg(long, value_name = "SIZE")]
    physical_soft: Option<Bound>,
    /// Most bytes of files, summed over snapshots.
    #[arg(long, value_name = "SIZE")]
    logical: Option<Bound>,
    /// Give notice above this many bytes of files.
    #[arg(long, value_name = "SIZE")]
    logical_soft: Option<Bound>,
    #[command(flatten)]
    output: Output,
}

/// A size, or none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Bound(pub(crate) Option<u64>);

impl FromStr for Bound {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text == "none" {
            return Ok(Bound(None));
        }
        let digits = text.bytes().take_while(u8::is_ascii_digit).count();
        let (number, unit) = text.split_at(digits);
        let unit_bytes: u64 = match unit.trim().to_ascii_lowercase().as_str() {
            "" | "b" => 1,
            "k" | "kib" => 1 << 10,
            "m" | "mib" => 1 << 20,
            "g" | "gib" => 1 << 30,
            "t" | "tib" => 1 << 40,
            "p" | "pib" => 1 << 50,
            "kb" => 1_000,
            "mb" => 1_000_000,
            "gb" => 1_000_000_000,
            "tb" => 1_000_000_000_000,
            "pb" => 1_000_000_000_000_000,
            _ => return Err("a size is a number with a unit, such as 500GiB or 2TB, or `none`".into()),
        };
        let bytes = number.parse::<u64>().ok().and_then(|number| number.checked_mul(unit_bytes));
        bytes.map(|bytes| Bound(Some(bytes))).ok_or_else(|| "the size is no whole number or too large".into())
    }
}

fn path(limit: &str) -> String {
    format!("/quotas/{}", utf8_percent_encode(limit, NON_ALPHANUMERIC))
}

/// Bytes for people: binary units when that is exact, else the bytes themselves.
pub(crate) fn size(bytes: Option<u64>) -> String {
    let Some(bytes) = bytes else { return "-".into() };
    let units = [(1u64 << 50, "PiB"), (1 << 40, "TiB"), (1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB")];
    let exact = units.iter().find(|(unit, _)| bytes >= *unit && bytes % unit == 0);
    exact.map_or_else(|| bytes.to_string(), |(unit, name)| format!("{} {name}", bytes / unit))
}

fn print(quotas: &[Quota]) -> io::Result<()> {
    let mut rows = Vec::new();
    for quota in quotas {
        let QuotaLimits { physical_soft_bytes, physical_hard_bytes, logical_soft_bytes, logical_hard_bytes } =
            quota.limits;
        let lines = [
            (
                "physical",
                quota.used_physical_bytes,
                quota.reserved_physical_bytes,
                physical_soft_bytes,
                physical_hard_bytes,
            ),
            ("logical", quota.used_logical_bytes, quota.reserved_logical_bytes, logical_soft_bytes, logical_hard_bytes),
        ];
        for (kind, used, reserved, soft, hard) in lines {
            let left = hard.map(|hard| hard.saturating_sub(used).saturating_sub(reserved).to_string());
            let note = if hard.is_some_and(|hard| used >= hard) {
                "full"
            } else if soft.is_some_and(|soft| used > soft) {
                "above the soft limit"
            } else {
                ""
            };
            rows.push(vec![
                quota.limit.clone(),
                kind.to_owned(),
                used.to_string(),
                reserved.to_string(),
                size(soft),
                size(hard),
                left.unwrap_or("-".into()),
                note.to_owned(),
            ]);
        }
    }
    table::print(&["LIMIT", "BYTES", "USED", "RESERVED", "SOFT", "HARD", "LEFT", ""], &rows)
}

pub(crate) async fn quota(settings: &CommonSettings, command: QuotaCommand) -> Result<(), CommandError> {
    let server = find(settings)?;
    match command {
        QuotaCommand::Set(set) => {
            let SetQuota { limit, physical, physical_soft, logical, logical_soft, output } = *set;
            if [physical, physical_soft, logical, logical_soft].iter().all(Option::is_none) {
                return Err(CommandError::Refused("name what to set: --physical, --logical, or a soft limit".into()));
            }
            let found: Quota = server.get(&path(&limit)).await?;
            let changed = |bound: Option<Bound>, now: Option<u64>| bound.map_or(now, |bound| bound.0);
            let limits = QuotaLimits {
                physical_soft_bytes: changed(physical_soft, found.limits.physical_soft_bytes),
                physical_hard_bytes: changed(physical, found.limits.physical_hard_bytes),
                logical_soft_bytes: changed(logical_soft, found.limits.logical_soft_bytes),
                logical_hard_bytes: changed(logical, found.limits.logical_hard_bytes),
            };
            let quota: Quota = server.put(&path(&limit), &limits).await?;
            if output.json {
                return print_json(&quota);
            }
            print(&[quota])?;
        }
        QuotaCommand::Show { limit: Some(limit), output } => {
            let quota: Quota = server.get(&path(&limit)).await?;
            if output.json {
                return print_json(&quota);
            }
            print(&[quota])?;
        }
        QuotaCommand::Show { limit: None, output } => {
            let quotas: Quotas = server.get("/quotas").await?;
            if output.json {
                return print_json(&quotas);
            }
            print(&quotas.quotas)?;
        }
        QuotaCommand::Partner { customer, partner, none: _ } => {
            let path = format!("/customers/{}/partner", utf8_percent_encode(&customer, NON_ALPHANUMERIC));
            let set: SetPartner = server.put(&path, &SetPartner { partner }).await?;
            match set.partner {
                Some(partner) => writeln!(io::stdout(), "Customer {customer} counts under partner:{partner}.")?,
                None => writeln!(io::stdout(), "Customer {customer} counts under no partner.")?,
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_have_units() {
        let bound = |text: &str| text.parse::<Bound>().map(|bound| bound.0);
        assert_eq!(bound("none"), Ok(None));
        assert_eq!(bound("0"), Ok(Some(0)));
        assert_eq!(bound("17"), Ok(Some(17)));
        assert_eq!(bound("2GiB"), Ok(Some(2 << 30)));
        assert_eq!(bound("2 gb"), Ok(Some(2_000_000_000)));
        assert_eq!(bound("3t"), Ok(Some(3 << 40)));
        for bad in ["", "GiB", "-1", "1.5GiB", "1 XB", "99999999999PiB", "None"] {
            assert!(bound(bad).is_err(), "{bad}");
        }
        assert_eq!(size(Some(3 << 30)), "3 GiB");
        assert_eq!(size(Some((3 << 30) + 1)), "3221225473");
        assert_eq!(size(Some(0)), "0");
        assert_eq!(size(None), "-");
    }
}
