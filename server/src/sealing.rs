//! The key under which secrets in the accounts database are sealed: random, and stored there wrapped by the master key,
//! so that a change of the master key wraps one key anew and touches no secret.

use crate::app::AppError;
use crate::app::identity::Sealer;
use control::{Control, ControlError};
use repo_format::crypto::{NONCE_BYTES, default_aead};
use repo_format::keyring::MasterKey;
use zeroize::Zeroizing;

const KEY_BYTES: usize = 32;
const WRAPPING_CONTEXT: &str = "holdfast 2026-11 wraps the sealing key of accounts";
const WRAPPING_PURPOSE: &[u8] = b"sealing key";

/// Seals and opens with XAES-256-GCM under a random nonce.
pub struct SealingKey(Zeroizing<[u8; KEY_BYTES]>);

impl std::fmt::Debug for SealingKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("SealingKey(..)")
    }
}

fn failed(error: impl std::fmt::Display) -> AppError {
    AppError::Internal(format!("sealing: {error}"))
}

impl SealingKey {
    /// From its bytes.
    pub fn from_bytes(bytes: [u8; KEY_BYTES]) -> Self {
        SealingKey(Zeroizing::new(bytes))
    }

    fn wrapping(master: &MasterKey) -> Self {
        SealingKey(Zeroizing::new(blake3::derive_key(WRAPPING_CONTEXT, master.expose())))
    }

    /// The key of these accounts, made at the first start. A key that another master key wrapped cannot be opened: then
    /// a new one is made, and whoever has a second factor needs a recovery code or an operator.
    pub async fn load_or_create(control: &Control, master: &MasterKey, now_ns: i64) -> Result<Self, AppError> {
        let fingerprint = master.fingerprint();
        if let Some(wrapped) = control.sealing_key(&fingerprint).await? {
            let bytes = Self::wrapping(master).open(WRAPPING_PURPOSE, &wrapped)?;
            let bytes: [u8; KEY_BYTES] = bytes.as_slice().try_into().map_err(failed)?;
            control.keep_only_sealing_key(&fingerprint).await?;
            return Ok(SealingKey::from_bytes(bytes));
        }
        if control.has_sealing_key().await? {
            tracing::error!(
                "second factors in the accounts database are sealed under another master key and cannot be read; their \
                 owners need a recovery code or `holdfastd recovery`"
            );
        }
        let mut bytes = [0; KEY_BYTES];
        getrandom::fill(&mut bytes).map_err(failed)?;
        let key = SealingKey::from_bytes(bytes);
        key.wrap(control, master, now_ns).await?;
        Ok(key)
    }

    /// Stores this key as wrapped by a master key, beside what another one wrapped.
    pub async fn wrap(&self, control: &Control, master: &MasterKey, now_ns: i64) -> Result<(), AppError> {
        let wrapped = Self::wrapping(master).seal(WRAPPING_PURPOSE, self.0.as_slice())?;
        Ok(control.add_sealing_key(&master.fingerprint(), &wrapped, now_ns).await?)
    }

    /// Before the master key is changed: what `old` wrapped is wrapped by `new` as well, so that whichever of them is in
    /// use behind a crash opens it.
    pub async fn prepare_rotation(
        control: &Control,
        old: &MasterKey,
        new: &MasterKey,
        now_ns: i64,
    ) -> Result<(), AppError> {
        let Some(wrapped) = control.sealing_key(&old.fingerprint()).await? else { return Ok(()) };
        let bytes = Self::wrapping(old).open(WRAPPING_PURPOSE, &wrapped)?;
        let bytes: [u8; KEY_BYTES] = bytes.as_slice().try_into().map_err(failed)?;
        SealingKey::from_bytes(bytes).wrap(control, new, now_ns).await
    }
}

impl Sealer for SealingKey {
    fn seal(&self, purpose: &[u8], plaintext: &[u8]) -> Result<Vec<u8>, AppError> {
        let mut nonce = [0; NONCE_BYTES];
        getrandom::fill(&mut nonce).map_err(failed)?;
        let mut sealed = plaintext.to_vec();
        default_aead().seal(&self.0, &nonce, purpose, &mut sealed).map_err(failed)?;
        Ok([nonce.as_slice(), &sealed].concat())
    }

    fn open(&self, purpose: &[u8], sealed: &[u8]) -> Result<Zeroizing<Vec<u8>>, AppError> {
        let short = || failed(ControlError::Corrupt { what: "sealed secret" });
        let (nonce, sealed) = sealed.split_first_chunk::<NONCE_BYTES>().ok_or_else(short)?;
        let mut plaintext = Zeroizing::new(sealed.to_vec());
        default_aead().open(&self.0, nonce, purpose, &mut plaintext).map_err(failed)?;
        Ok(plaintext)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_sealed_opens_for_its_purpose_only() {
        let key = SealingKey::from_bytes([7; KEY_BYTES]);
        let sealed = key.seal(b"one", b"secret").unwrap();
        assert_eq!(key.open(b"one", &sealed).unwrap().as_slice(), b"secret");
        assert_ne!(key.seal(b"one", b"secret").unwrap(), sealed);
        assert!(key.open(b"two", &sealed).is_err() && key.open(b"one", &sealed[1..]).is_err());
        assert!(key.open(b"one", b"").is_err());
        assert!(SealingKey::from_bytes([8; KEY_BYTES]).open(b"one", &sealed).is_err());
    }

    #[tokio::test]
    async fn a_change_of_the_master_key_keeps_the_sealing_key() {
        let folder = tempfile::tempdir().unwrap();
        let control = Control::open(&folder.path().join("accounts.sqlite")).await.unwrap();
        let (old, new) = (MasterKey::from_bytes([1; 32]), MasterKey::from_bytes([2; 32]));
        let sealed = SealingKey::load_or_create(&control, &old, 1).await.unwrap().seal(b"p", b"secret").unwrap();
        SealingKey::prepare_rotation(&control, &old, &new, 2).await.unwrap();
        // Cut short here, the old master key still opens it; and so does the new one.
        for master in [&old, &new] {
            SealingKey::prepare_rotation(&control, &old, &new, 3).await.unwrap();
            let key = SealingKey::load_or_create(&control, master, 4).await.unwrap();
            assert_eq!(key.open(b"p", &sealed).unwrap().as_slice(), b"secret");
        }
        assert!(control.sealing_key(&old.fingerprint()).await.unwrap().is_none(), "the old wrapping is forgotten");
        // Another master key, of which these accounts know nothing, starts anew.
        let key = SealingKey::load_or_create(&control, &MasterKey::from_bytes([3; 32]), 5).await.unwrap();
        assert!(key.open(b"p", &sealed).is_err());
    }
}
