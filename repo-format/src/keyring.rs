//! The keyring: the master key wraps a key-encryption key, which wraps a random root key per vault and a random data
//! key per vault and data epoch. A vault whose entry is gone from every copy of the keyring can never be read again.

use crate::FormatError;
use crate::codec::Reader;
use crate::crypto::{KEY_BYTES, NONCE_BYTES, TAG_BYTES, default_aead};
use crate::features::Features;
use crate::id::VaultId;
use crate::keys::{DataKey, VaultRootKey};
use crate::limits::KEYRING_BYTES_MAX;
pub use crate::masterkey::MasterKey;
use std::collections::BTreeMap;
use zeroize::Zeroizing;

/// First bytes of every keyring.
pub const KEYRING_MAGIC: [u8; 8] = *b"HFKEYR01";
/// Version of the keyring this build reads and writes.
pub const KEYRING_VERSION: u16 = 1;
/// Random bytes that creating a keyring takes: the key-encryption key and the nonce that wraps it.
pub const CREATE_RANDOM_BYTES: usize = KEY_BYTES + NONCE_BYTES;
/// Random bytes that a new vault takes: root key and nonce, first data key and nonce.
pub const VAULT_RANDOM_BYTES: usize = 2 * (KEY_BYTES + NONCE_BYTES);
/// Random bytes that a new data key takes: the key and its nonce.
pub const DATA_KEY_RANDOM_BYTES: usize = KEY_BYTES + NONCE_BYTES;
/// Most data keys of one vault.
pub const DATA_KEYS_MAX: usize = 4096;

/// Bytes of a wrapped key: nonce, ciphertext, tag.
const WRAPPED_BYTES: usize = NONCE_BYTES + KEY_BYTES + TAG_BYTES;
/// Bytes of the file before its entries.
const HEADER_BYTES: usize = 8 + 2 + 2 + Features::BYTES + 8 + 8 + WRAPPED_BYTES + 4;
/// Bytes of an entry before its data keys.
const ENTRY_BYTES: usize = VaultId::LEN + WRAPPED_BYTES + 4;
/// Bytes of one data key of an entry.
const DATA_KEY_BYTES: usize = 4 + WRAPPED_BYTES;
/// Bytes of the checksum at the end.
const CHECKSUM_BYTES: usize = 32;

const KEYRING: &str = "keyring";

type Wrapped = [u8; WRAPPED_BYTES];

/// What a wrapped key is bound to, so that none can stand in for another.
#[derive(Clone, Copy)]
enum Purpose {
    /// The key-encryption key of a generation, under the master key.
    KeyEncryption { generation: u64 },
    /// A vault's root key, under the key-encryption key.
    Root { vault: VaultId },
    /// A vault's data key of an epoch, under the key-encryption key.
    Data { vault: VaultId, epoch: u32 },
}

impl Purpose {
    fn associated_data(self) -> Vec<u8> {
        match self {
            Purpose::KeyEncryption { generation } => [b"holdfast kek\0".as_slice(), &generation.to_le_bytes()].concat(),
            Purpose::Root { vault } => [b"holdfast root\0".as_slice(), vault.as_bytes()].concat(),
            Purpose::Data { vault, epoch } => {
                [b"holdfast data\0".as_slice(), vault.as_bytes(), &epoch.to_le_bytes()].concat()
            }
        }
    }
}

fn wrap(
    wrapping: &[u8; KEY_BYTES],
    purpose: Purpose,
    nonce: &[u8; NONCE_BYTES],
    key: &[u8; KEY_BYTES],
) -> Result<Wrapped, FormatError> {
    let mut out = [0; WRAPPED_BYTES];
    out[..NONCE_BYTES].copy_from_slice(nonce);
    out[NONCE_BYTES..NONCE_BYTES + KEY_BYTES].copy_from_slice(key);
    let ciphertext = &mut out[NONCE_BYTES..NONCE_BYTES + KEY_BYTES];
    let tag = default_aead().seal_in_place(wrapping, nonce, &purpose.associated_data(), ciphertext)?;
    out[NONCE_BYTES + KEY_BYTES..].copy_from_slice(&tag);
    Ok(out)
}

fn unwrap_key(
    wrapping: &[u8; KEY_BYTES],
    purpose: Purpose,
    wrapped: &Wrapped,
) -> Result<Zeroizing<[u8; KEY_BYTES]>, FormatError> {
    let mut reader = Reader::new(KEYRING, wrapped);
    let nonce = reader.array()?;
    let mut key = Zeroizing::new(reader.array()?);
    let tag = reader.array()?;
    default_aead()
        .open_in_place(wrapping, &nonce, &purpose.associated_data(), key.as_mut_slice(), &tag)
        .map_err(|_| FormatError::Authentication { what: KEYRING })?;
    Ok(key)
}

#[derive(Clone, PartialEq, Eq)]
struct KeyringEntry {
    root: Wrapped,
    /// By epoch; never empty.
    data: BTreeMap<u32, Wrapped>,
}

impl KeyringEntry {
    fn encoded_len(&self) -> usize {
        ENTRY_BYTES + self.data.len() * DATA_KEY_BYTES
    }
}

/// A keyring as it lies on disk: which vaults it has keys for, but not the keys.
#[derive(Clone, PartialEq, Eq)]
pub struct Keyring {
    features: Features,
    generation: u64,
    master_fingerprint: [u8; 8],
    kek: Wrapped,
    vaults: BTreeMap<VaultId, KeyringEntry>,
}

impl std::fmt::Debug for Keyring {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Keyring").field("generation", &self.generation).field("vaults", &self.vaults.len()).finish()
    }
}

impl Keyring {
    /// A keyring without vaults whose key-encryption key is the first 32 of `random` bytes.
    pub fn create(master: &MasterKey, random: &[u8; CREATE_RANDOM_BYTES]) -> Result<UnlockedKeyring, FormatError> {
        let mut reader = Reader::new(KEYRING, random);
        let kek = Zeroizing::new(reader.array()?);
        let nonce = reader.array()?;
        let generation = 1;
        let keyring = Keyring {
            features: Features::default(),
            generation,
            master_fingerprint: master.fingerprint_bytes(),
            kek: wrap(&master.wrapping_key(), Purpose::KeyEncryption { generation }, &nonce, &kek)?,
            vaults: BTreeMap::new(),
        };
        Ok(UnlockedKeyring { keyring, kek })
    }

    /// Reads a whole keyring file. The checksum over all of it is checked right after the magic number.
    pub fn parse(bytes: &[u8]) -> Result<Self, FormatError> {
        if bytes.len() > KEYRING_BYTES_MAX {
            let (value, limit) = (bytes.len() as u64, KEYRING_BYTES_MAX as u64);
            return Err(FormatError::Limit { what: "keyring bytes", value, limit });
        }
        if bytes.len() < HEADER_BYTES + CHECKSUM_BYTES {
            return Err(FormatError::Truncated { what: KEYRING });
        }
        if !bytes.starts_with(&KEYRING_MAGIC) {
            return Err(FormatError::BadMagic { what: KEYRING });
        }
        let (covered, checksum) =
            bytes.split_last_chunk::<CHECKSUM_BYTES>().ok_or(FormatError::Truncated { what: KEYRING })?;
        if blake3::hash(covered).as_bytes() != checksum {
            return Err(FormatError::Checksum { what: KEYRING });
        }
        let mut reader = Reader::new(KEYRING, covered);
        let _magic: [u8; 8] = reader.array()?;
        let version = reader.u16()?;
        if version != KEYRING_VERSION {
            return Err(FormatError::UnsupportedVersion { what: KEYRING, version: u32::from(version) });
        }
        let _reserved = reader.u16()?;
        let mut keyring = Keyring {
            features: Features::read(&mut reader, KEYRING)?,
            generation: reader.u64()?,
            master_fingerprint: reader.array()?,
            kek: reader.array()?,
            vaults: BTreeMap::new(),
        };
        for _ in 0..reader.u32()? {
            let vault = VaultId::from_bytes(reader.array()?);
            if keyring.vaults.last_key_value().is_some_and(|(last, _)| *last >= vault) {
                return Err(FormatError::invalid(KEYRING, "vaults are not in order"));
            }
            keyring.vaults.insert(vault, parse_entry(&mut reader)?);
        }
        reader.finish()?;
        Ok(keyring)
    }

    /// The whole file.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(self.encoded_len());
        out.extend_from_slice(&KEYRING_MAGIC);
        out.extend_from_slice(&KEYRING_VERSION.to_le_bytes());
        out.extend_from_slice(&[0; 2]);
        out.extend_from_slice(&self.features.to_bytes());
        out.extend_from_slice(&self.generation.to_le_bytes());
        out.extend_from_slice(&self.master_fingerprint);
        out.extend_from_slice(&self.kek);
        out.extend_from_slice(&(self.vaults.len() as u32).to_le_bytes());
        for (vault, entry) in &self.vaults {
            out.extend_from_slice(vault.as_bytes());
            out.extend_from_slice(&entry.root);
            out.extend_from_slice(&(entry.data.len() as u32).to_le_bytes());
            for (epoch, wrapped) in &entry.data {
                out.extend_from_slice(&epoch.to_le_bytes());
                out.extend_from_slice(wrapped);
            }
        }
        let checksum = blake3::hash(&out);
        out.extend_from_slice(checksum.as_bytes());
        out
    }

    fn encoded_len(&self) -> usize {
        let entries: usize = self.vaults.values().map(KeyringEntry::encoded_len).sum();
        HEADER_BYTES + entries + CHECKSUM_BYTES
    }

    /// Generation of the key-encryption key; 1 at first, one more at every rotation.
    pub const fn generation(&self) -> u64 {
        self.generation
    }

    /// Whether it has keys for the vault.
    pub fn has(&self, vault: &VaultId) -> bool {
        self.vaults.contains_key(vault)
    }

    /// The vaults it has keys for, in order.
    pub fn vaults(&self) -> impl Iterator<Item = VaultId> + '_ {
        self.vaults.keys().copied()
    }

    /// Unwraps the key-encryption key. A wrong master key is [`FormatError::Authentication`].
    pub fn unlock(self, master: &MasterKey) -> Result<UnlockedKeyring, FormatError> {
        if self.master_fingerprint != master.fingerprint_bytes() {
            return Err(FormatError::Authentication { what: KEYRING });
        }
        let purpose = Purpose::KeyEncryption { generation: self.generation };
        let kek = unwrap_key(&master.wrapping_key(), purpose, &self.kek)?;
        Ok(UnlockedKeyring { keyring: self, kek })
    }
}

fn parse_entry(reader: &mut Reader<'_>) -> Result<KeyringEntry, FormatError> {
    let root = reader.array()?;
    let count = reader.u32()? as usize;
    if count == 0 || count > DATA_KEYS_MAX {
        return Err(FormatError::Limit { what: "data keys", value: count as u64, limit: DATA_KEYS_MAX as u64 });
    }
    let mut data = BTreeMap::new();
    for _ in 0..count {
        let epoch = reader.u32()?;
        if data.last_key_value().is_some_and(|(last, _)| *last >= epoch) {
            return Err(FormatError::invalid(KEYRING, "data keys are not in order"));
        }
        data.insert(epoch, reader.array()?);
    }
    Ok(KeyringEntry { root, data })
}

/// The keys of one vault.
#[derive(Clone)]
pub struct VaultKeys {
    /// From which its id keys derive.
    pub root: VaultRootKey,
    /// By rising epoch; never empty. New frames are sealed with the last one.
    pub data: Vec<DataKey>,
}

impl VaultKeys {
    /// The key of a data epoch.
    pub fn data_key(&self, epoch: u32) -> Option<&DataKey> {
        self.data.binary_search_by_key(&epoch, |key| key.epoch).ok().and_then(|index| self.data.get(index))
    }
}

/// A keyring with its key-encryption key in memory.
#[derive(Clone)]
pub struct UnlockedKeyring {
    keyring: Keyring,
    kek: Zeroizing<[u8; KEY_BYTES]>,
}

impl std::fmt::Debug for UnlockedKeyring {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.keyring.fmt(f)
    }
}

impl UnlockedKeyring {
    /// The keyring as it lies on disk.
    pub const fn keyring(&self) -> &Keyring {
        &self.keyring
    }

    /// The whole file; nothing in it is secret without the master key.
    pub fn encode(&self) -> Vec<u8> {
        self.keyring.encode()
    }

    fn check_may_change(&self, more_bytes: usize) -> Result<(), FormatError> {
        if !self.keyring.features.may_write() {
            let bits = self.keyring.features.read_only_compatible;
            return Err(FormatError::UnsupportedFeatures { what: KEYRING, bits });
        }
        let bytes = self.keyring.encoded_len() + more_bytes;
        if bytes > KEYRING_BYTES_MAX {
            let (value, limit) = (bytes as u64, KEYRING_BYTES_MAX as u64);
            return Err(FormatError::Limit { what: "keyring bytes", value, limit });
        }
        Ok(())
    }

    /// Adds a vault whose root key and first data key (epoch 1) are taken from `random` bytes. A vault that has keys
    /// already is an error: its keys are never replaced.
    pub fn insert_vault(
        &mut self,
        vault: VaultId,
        random: &[u8; VAULT_RANDOM_BYTES],
    ) -> Result<VaultKeys, FormatError> {
        self.check_may_change(ENTRY_BYTES + DATA_KEY_BYTES)?;
        if self.keyring.vaults.contains_key(&vault) {
            return Err(FormatError::invalid(KEYRING, "the vault has keys already"));
        }
        let epoch = 1;
        let mut reader = Reader::new(KEYRING, random);
        let (root, root_nonce) = (Zeroizing::new(reader.array()?), reader.array()?);
        let (data, data_nonce) = (Zeroizing::new(reader.array()?), reader.array()?);
        let entry = KeyringEntry {
            root: wrap(&self.kek, Purpose::Root { vault }, &root_nonce, &root)?,
            data: BTreeMap::from([(epoch, wrap(&self.kek, Purpose::Data { vault, epoch }, &data_nonce, &data)?)]),
        };
        self.keyring.vaults.insert(vault, entry);
        Ok(VaultKeys { root: VaultRootKey::from_bytes(*root), data: vec![DataKey::new(epoch, *data)] })
    }

    /// Adds the data key of the vault's next epoch; from now on new frames are sealed with it.
    pub fn add_data_key(
        &mut self,
        vault: &VaultId,
        random: &[u8; DATA_KEY_RANDOM_BYTES],
    ) -> Result<DataKey, FormatError> {
        self.check_may_change(DATA_KEY_BYTES)?;
        let entry =
            self.keyring.vaults.get_mut(vault).ok_or(FormatError::invalid(KEYRING, "no keys for this vault"))?;
        let last = entry.data.last_key_value().map_or(0, |(last, _)| *last);
        let epoch = last.checked_add(1).filter(|_| entry.data.len() < DATA_KEYS_MAX).ok_or(FormatError::Limit {
            what: "data keys",
            value: u64::from(last),
            limit: DATA_KEYS_MAX as u64,
        })?;
        let mut reader = Reader::new(KEYRING, random);
        let (key, nonce) = (Zeroizing::new(reader.array()?), reader.array()?);
        entry.data.insert(epoch, wrap(&self.kek, Purpose::Data { vault: *vault, epoch }, &nonce, &key)?);
        Ok(DataKey::new(epoch, *key))
    }

    /// The keys of a vault; `None` if it has none here.
    pub fn keys(&self, vault: &VaultId) -> Result<Option<VaultKeys>, FormatError> {
        let Some(entry) = self.keyring.vaults.get(vault) else { return Ok(None) };
        let root = unwrap_key(&self.kek, Purpose::Root { vault: *vault }, &entry.root)?;
        let mut data = Vec::with_capacity(entry.data.len());
        for (&epoch, wrapped) in &entry.data {
            let key = unwrap_key(&self.kek, Purpose::Data { vault: *vault, epoch }, wrapped)?;
            data.push(DataKey::new(epoch, *key));
        }
        Ok(Some(VaultKeys { root: VaultRootKey::from_bytes(*root), data }))
    }

    /// Drops the keys of a vault; false if it had none. What they sealed cannot be read again once no copy of the
    /// keyring holds them.
    pub fn remove_vault(&mut self, vault: &VaultId) -> Result<bool, FormatError> {
        self.check_may_change(0)?;
        Ok(self.keyring.vaults.remove(vault).is_some())
    }

    /// Wraps the key-encryption key with another master key. The old one no longer opens this keyring, but still
    /// opens older copies of it.
    pub fn rotate_master(&mut self, master: &MasterKey, nonce: &[u8; NONCE_BYTES]) -> Result<(), FormatError> {
        self.check_may_change(0)?;
        let purpose = Purpose::KeyEncryption { generation: self.keyring.generation };
        self.keyring.kek = wrap(&master.wrapping_key(), purpose, nonce, &self.kek)?;
        self.keyring.master_fingerprint = master.fingerprint_bytes();
        Ok(())
    }

    /// Replaces the key-encryption key by a random one of the next generation and wraps every key again. `random`
    /// fills its argument with random bytes, or says why it cannot. On an error nothing has changed.
    pub fn rotate_key_encryption_key<E: From<FormatError>>(
        &mut self,
        master: &MasterKey,
        random: &mut dyn FnMut(&mut [u8]) -> Result<(), E>,
    ) -> Result<(), E> {
        self.check_may_change(0)?;
        if self.keyring.master_fingerprint != master.fingerprint_bytes() {
            return Err(FormatError::Authentication { what: KEYRING }.into());
        }
        let mut kek = Zeroizing::new([0; KEY_BYTES]);
        random(kek.as_mut_slice())?;
        let mut nonce = || {
            let mut nonce = [0; NONCE_BYTES];
            random(&mut nonce).map(|()| nonce)
        };
        let generation = self.keyring.generation.saturating_add(1);
        let mut vaults = BTreeMap::new();
        for (&vault, entry) in &self.keyring.vaults {
            let rewrap = |purpose, wrapped, nonce: &[u8; NONCE_BYTES]| {
                wrap(&kek, purpose, nonce, &*unwrap_key(&self.kek, purpose, wrapped)?)
            };
            let root = rewrap(Purpose::Root { vault }, &entry.root, &nonce()?)?;
            let mut data = BTreeMap::new();
            for (&epoch, wrapped) in &entry.data {
                data.insert(epoch, rewrap(Purpose::Data { vault, epoch }, wrapped, &nonce()?)?);
            }
            vaults.insert(vault, KeyringEntry { root, data });
        }
        self.keyring.kek = wrap(&master.wrapping_key(), Purpose::KeyEncryption { generation }, &nonce()?, &kek)?;
        self.keyring.generation = generation;
        self.keyring.vaults = vaults;
        self.kek = kek;
        Ok(())
    }
}

#[cfg(test)]
mod tests;
