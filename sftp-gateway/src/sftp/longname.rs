//! Lines as `ls -l` writes them: FileZilla takes from their first letter whether an entry is a folder, and the size from
//! their fifth column.

use crate::fs::{Attributes, Kind, Owner};
use crate::path::printable;
use jiff::Timestamp;
use jiff::tz::TimeZone;

const HALF_A_YEAR_SECONDS: i64 = 365 * 24 * 3600 / 2;

/// `-r--r--r--    1 owner    group          1234 Mar 25 14:29 name`, or the year in place of the time for what is older
/// than half a year or in the future. Times are UTC. `now` is seconds since 1970.
pub fn longname(name: &[u8], attributes: &Attributes, owner: &Owner, now: i64) -> Vec<u8> {
    let letter = match attributes.kind {
        Kind::File => '-',
        Kind::Folder => 'd',
        Kind::Link => 'l',
        Kind::Other => 'p',
    };
    let mut line = String::with_capacity(64 + name.len());
    line.push(letter);
    for shift in [6, 3, 0] {
        let bits = attributes.permissions >> shift;
        line.push(if bits & 4 != 0 { 'r' } else { '-' });
        line.push(if bits & 2 != 0 { 'w' } else { '-' });
        line.push(if bits & 1 != 0 { 'x' } else { '-' });
    }
    let seconds = i64::from(attributes.modified);
    let age = now - seconds;
    let pattern = if (0..=HALF_A_YEAR_SECONDS).contains(&age) { "%b %e %H:%M" } else { "%b %e  %Y" };
    let date = Timestamp::from_second(seconds).unwrap_or(Timestamp::UNIX_EPOCH).to_zoned(TimeZone::UTC);
    let date = date.strftime(pattern);
    let (user, group) = (&owner.user, &owner.group);
    line.push_str(&format!(" {:>4} {user:<8} {group:<8} {:>8} {date} ", attributes.links, attributes.size));
    if std::str::from_utf8(name).is_ok_and(|text| !text.chars().any(char::is_control))
        || name.iter().all(|byte| *byte >= 32)
    {
        // As it is, for clients compare it with the name.
        let mut bytes = line.into_bytes();
        bytes.extend_from_slice(name);
        return bytes;
    }
    line.push_str(&printable(name));
    line.into_bytes()
}

#[cfg(test)]
mod tests {
    use super::longname;
    use crate::fs::{Attributes, Owner};

    #[test]
    fn lines_look_like_those_of_ls() {
        let owner = Owner { user: "tenant".into(), group: "export".into() };
        let now = 1_774_500_000; // 2026-03-26 04:40:00
        let line =
            |attributes: &Attributes, name: &[u8]| String::from_utf8(longname(name, attributes, &owner, now)).unwrap();
        let file = Attributes::file(79_456_894_976, 1_774_448_940);
        assert_eq!(line(&file, b"a b"), "-r--r--r--    1 tenant   export   79456894976 Mar 25 14:29 a b");
        let old = Attributes::folder(1_735_689_600);
        assert_eq!(line(&old, b"x"), "dr-xr-xr-x    1 tenant   export       4096 Jan  1  2025 x");
        assert_eq!(
            line(&Attributes::file(1, u32::MAX), b"x"),
            "-r--r--r--    1 tenant   export          1 Feb  7  2106 x"
        );
        assert!(line(&file, b"a\nb").ends_with(" a\\nb"));
    }
}
