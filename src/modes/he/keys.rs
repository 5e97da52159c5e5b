//! The keys of a key holder: the secret one, kept as a seed, and the public one, which it signs.
//!
//! `fhe` makes the secret key from the seed. Its version is pinned: another sampler would make another key, and the check of
//! a secret key against its public key would refuse it.

use crate::io::publish::stage;
use crate::io::{secret, text};
use crate::modes::he::bfv::{Decryptor, Encryptor, Scheme};
use crate::modes::he::params::Params;
use crate::parties::HE_PROTOCOL;
use crate::parties::error::SecureError;
use crate::parties::fault::MessageFault;
use crate::parties::hex::Hex;
use crate::parties::identity::check_id;
use crate::parties::identity::{Identity, PublicIdentity, Stage, is_verifying_key};
use crate::parties::signed_text::SignedText;
use crate::record::sha256::Sha256;
use serde::{Deserialize, Serialize};
use std::path::Path;
use zeroize::Zeroizing;

/// The most bytes of a file of numbers.
const MOST_BYTES: u64 = 16 << 10;

/// A party of a round: its name, and the public key of its signatures.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, Debug)]
#[serde(deny_unknown_fields)]
pub struct Party {
    /// Its name.
    pub id: String,
    /// The public key of its signatures.
    pub ed25519: Hex<32>,
}

impl Party {
    /// Checks the name and the key.
    ///
    /// # Errors
    ///
    /// When the name may not name a file, or the key is none.
    pub fn check(&self) -> Result<(), String> {
        check_id(&self.id)?;
        if is_verifying_key(&self.ed25519) {
            return Ok(());
        }
        Err(format!("`ed25519` of `{}`: expected a public key of Ed25519", self.id))
    }

    /// Whether a party that the user trusts has this name and this key.
    pub fn is_among(&self, trusted: &[PublicIdentity]) -> bool {
        trusted.iter().any(|known| known.id == self.id && known.ed25519 == self.ed25519)
    }
}

impl From<&PublicIdentity> for Party {
    fn from(identity: &PublicIdentity) -> Self {
        Self { id: identity.id.clone(), ed25519: identity.ed25519 }
    }
}

/// A public key, as the holder of its secret key signs it.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, Debug)]
#[serde(deny_unknown_fields)]
pub struct PublicKey {
    /// The protocol.
    pub protocol: String,
    /// The numbers of the scheme.
    pub params: Params,
    /// The key holder.
    pub holder: Party,
    /// The key in the form of `fhe`, in hexadecimal digits.
    pub key: String,
}

/// A public key whose signature is verified.
#[derive(Debug)]
pub struct PublicKeyFile {
    /// The digest of the file.
    pub digest: Sha256,
    /// The key as the holder signed it.
    pub stated: PublicKey,
    /// The key.
    pub encryptor: Encryptor,
    /// The scheme.
    pub scheme: Scheme,
}

impl PublicKeyFile {
    /// Reads a public key. The holder that it names signed it.
    ///
    /// # Errors
    ///
    /// When it cannot be read, is not signed, or is no key for its numbers.
    pub fn read(path: &Path) -> Result<Self, SecureError> {
        let text = SignedText::read(path)?;
        Self::of(&text).map_err(SecureError::file(path))
    }

    fn of(text: &SignedText) -> Result<Self, MessageFault> {
        let PublicKey { holder, .. } = text.unverified()?;
        let stated: PublicKey = text.verified(Stage::HeKeygen, &holder.id, &holder.ed25519)?;
        if stated.protocol != HE_PROTOCOL {
            let found = stated.protocol;
            return Err(MessageFault::Format(format!("protocol is `{found}`, expected `{HE_PROTOCOL}`")));
        }
        stated.holder.check().map_err(MessageFault::Format)?;
        let scheme = Scheme::new(&stated.params).map_err(MessageFault::Format)?;
        let key = base16ct::lower::decode_vec(&stated.key).map_err(|_| MessageFault::OtherForm)?;
        let encryptor = scheme.public(&key).map_err(|why| MessageFault::Format(format!("key: {why}")))?;
        Ok(Self { digest: Sha256::of(text.bytes()), stated, encryptor, scheme })
    }
}

/// Reads the numbers of the scheme, and checks them.
///
/// # Errors
///
/// When they cannot be read, or do not fit each other.
pub fn read_params(path: &Path) -> Result<Params, SecureError> {
    let json = text::read_at_most(path, MOST_BYTES).map_err(SecureError::io(path))?;
    let read = serde_json::from_str::<Params>(&json).map_err(|why| why.to_string());
    let checked = read.and_then(|params| params.check().map(|()| params));
    checked.map_err(|why| {
        let why = format!("{why}; expected the numbers that `fedmill he params` writes");
        SecureError::terms(path.display().to_string(), why)
    })
}

/// Makes a key pair, and writes both keys.
///
/// # Errors
///
/// When a key is there already, the numbers do not fit, or a file cannot be written.
pub fn generate(
    params: &Params,
    (holder, id): (&Identity, &str),
    public: &Path,
    secret_path: &Path,
) -> Result<(), SecureError> {
    for path in [public, secret_path] {
        if crate::io::folder::exists(path) {
            let hint = Some("name another file: keys are never replaced");
            return Err(SecureError::refused(format!("{}: is there already", path.display()), hint));
        }
    }
    let holder_party = Party { id: id.to_owned(), ed25519: holder.verifying() };
    holder_party.check().map_err(|why| SecureError::terms("--id", why))?;
    let scheme = Scheme::new(params).map_err(|why| SecureError::terms("params", why))?;
    let (mut seed, mut noise) = (Zeroizing::new([0; 32]), Zeroizing::new([0; 32]));
    getrandom::fill(seed.as_mut_slice())?;
    getrandom::fill(noise.as_mut_slice())?;
    let key = scheme.secret(&seed).new_public(&noise);
    let stated = PublicKey {
        protocol: HE_PROTOCOL.to_owned(),
        params: params.clone(),
        holder: holder_party,
        key: base16ct::lower::encode_string(&key),
    };
    let text = SignedText::sign(&stated, Stage::HeKeygen, holder)?;
    let staged = stage(public, text.bytes()).map_err(SecureError::io(public))?;
    secret::write_key(secret_path, &seed).map_err(SecureError::io(secret_path))?;
    staged.publish_on_disk(public).map_err(SecureError::io(public))
}

/// Reads the secret key of a public key.
///
/// # Errors
///
/// When it cannot be read, or belongs to another public key.
pub fn read_secret(path: &Path, public: &PublicKeyFile) -> Result<Decryptor, SecureError> {
    let seed = secret::read_key(path).map_err(SecureError::io(path))?.map(Zeroizing::new);
    let seed = seed.ok_or_else(|| {
        let why = "is not there, expected a secret key that `fedmill he keygen` wrote";
        SecureError::terms(path.display().to_string(), why)
    })?;
    let decryptor = public.scheme.secret(&seed);
    let mut random = Zeroizing::new([0; 32]);
    getrandom::fill(random.as_mut_slice())?;
    if decryptor.fits(&public.encryptor, &random) {
        return Ok(decryptor);
    }
    let why = format!("{}: is not the secret key of this round's public key", path.display());
    Err(SecureError::refused(why, Some("pass the secret key that keygen wrote beside that public key")))
}
