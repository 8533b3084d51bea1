//! As much of DER as it takes to get at the numbers of an RSA key that we made ourselves.

/// Tags.
pub(super) const INTEGER: u8 = 2;
pub(super) const OCTETS: u8 = 4;
pub(super) const SEQUENCE: u8 = 0x30;

/// Takes one value with this tag off the front.
pub(super) fn take<'a>(bytes: &mut &'a [u8], tag: u8) -> Option<&'a [u8]> {
    let (found, rest) = bytes.split_first()?;
    let (length, rest) = rest.split_first()?;
    let (length, rest) = match length {
        0..=0x7f => (usize::from(*length), rest),
        0x81..=0x84 => {
            let (digits, rest) = rest.split_at_checked(usize::from(length - 0x80))?;
            (digits.iter().fold(0, |length, digit| length << 8 | usize::from(*digit)), rest)
        }
        _ => return None,
    };
    let (value, rest) = rest.split_at_checked(length)?;
    *bytes = rest;
    (*found == tag).then_some(value)
}

/// The PKCS#1 key inside of PKCS#8.
pub(super) fn pkcs1_of_pkcs8(mut pkcs8: &[u8]) -> Option<&[u8]> {
    let mut fields = take(&mut pkcs8, SEQUENCE)?;
    take(&mut fields, INTEGER)?;
    take(&mut fields, SEQUENCE)?;
    take(&mut fields, OCTETS)
}

/// The numbers of a PKCS#1 key: n, e, d, p, q, and 1/q mod p.
pub(super) struct RsaNumbers<'a> {
    pub(super) n: &'a [u8],
    pub(super) e: &'a [u8],
    pub(super) d: &'a [u8],
    pub(super) p: &'a [u8],
    pub(super) q: &'a [u8],
    pub(super) q_inverse: &'a [u8],
}

/// Reads RFC 8017's RSAPrivateKey.
pub(super) fn rsa_numbers(mut pkcs1: &[u8]) -> Option<RsaNumbers<'_>> {
    let mut fields = take(&mut pkcs1, SEQUENCE)?;
    let mut next = || take(&mut fields, INTEGER);
    next()?;
    let (n, e, d, p, q) = (next()?, next()?, next()?, next()?, next()?);
    next()?;
    next()?;
    Some(RsaNumbers { n, e, d, p, q, q_inverse: next()? })
}
