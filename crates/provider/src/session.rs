//! Sign-in with a wallet (EIP-4361): a nonce, a signed message, and a token for a short while.
//!
//! Anybody may ask for nonces and try to sign in. The worst of them fills the two tables, which are bounded: the
//! oldest entries make room, so that at most somebody has to sign in again. A token is worth what its wallet may
//! see and do at this provider, and nothing at another one: the message names the provider's address.

use std::{
    collections::HashMap,
    sync::Mutex,
    time::{Duration, Instant},
};

use alloy::primitives::{Address, hex};
use rand::RngCore;
use siwe::Message;

/// For how long a nonce may be signed.
const NONCE_LIFE: Duration = Duration::from_secs(120);

/// For how long a token lasts.
pub(crate) const TOKEN_LIFE: Duration = Duration::from_secs(3_600);

/// The most entries of each table.
const MAX_ENTRIES: usize = 10_000;

/// A sign-in that was refused.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SignInError {
    #[error("the message is not one of EIP-4361: {0}")]
    Format(String),
    #[error("the message is for {got}, this is {wanted}")]
    WrongDomain { got: String, wanted: String },
    #[error("the message is for chain {got}, this is chain {wanted}")]
    WrongChain { got: u64, wanted: u64 },
    #[error("the nonce is unknown, was used, or is older than two minutes: ask for a new one")]
    WrongNonce,
    #[error("the message is not valid at this time")]
    WrongTime,
    #[error("the signature is not that of the wallet in the message")]
    WrongSignature,
}

/// Who is signed in. Nothing of it outlives the process; a wallet just signs in again.
#[derive(Debug)]
pub(crate) struct Sessions {
    domain: String,
    chain_id: u64,
    nonces: Mutex<HashMap<String, Instant>>,
    tokens: Mutex<HashMap<String, (Address, Instant)>>,
}

impl Sessions {
    /// Sessions for wallets of `chain_id` at the provider `provider`, whose address is the message's domain: it
    /// stays the same whatever name or port the provider is reached under.
    pub(crate) fn new(provider: Address, chain_id: u64) -> Self {
        let domain = crate::wire::sign_in_domain(provider);
        Self { domain, chain_id, nonces: Mutex::default(), tokens: Mutex::default() }
    }

    /// A nonce to be signed within two minutes.
    pub(crate) fn nonce(&self) -> String {
        let nonce = random();
        let mut nonces = lock(&self.nonces);
        make_room(&mut nonces, |end| *end);
        nonces.insert(nonce.clone(), Instant::now() + NONCE_LIFE);
        nonce
    }

    /// A token for the wallet that signed `message`.
    pub(crate) fn sign_in(
        &self,
        message: &str,
        signature: &[u8; 65],
    ) -> Result<(String, Address), SignInError> {
        let parsed: Message = message
            .parse()
            .map_err(|err: siwe::ParseError| SignInError::Format(err.to_string()))?;
        if parsed.domain.as_str() != self.domain {
            let got = parsed.domain.to_string();
            return Err(SignInError::WrongDomain { got, wanted: self.domain.clone() });
        }
        if parsed.chain_id != self.chain_id {
            let (got, wanted) = (parsed.chain_id, self.chain_id);
            return Err(SignInError::WrongChain { got, wanted });
        }
        if !parsed.valid_now() {
            return Err(SignInError::WrongTime);
        }
        let known = lock(&self.nonces).remove(&parsed.nonce);
        if known.is_none_or(|end| end < Instant::now()) {
            return Err(SignInError::WrongNonce);
        }
        parsed.verify_eip191(signature).map_err(|_err| SignInError::WrongSignature)?;
        let (token, wallet) = (random(), Address::from(parsed.address));
        let mut tokens = lock(&self.tokens);
        make_room(&mut tokens, |(_, end)| *end);
        tokens.insert(token.clone(), (wallet, Instant::now() + TOKEN_LIFE));
        Ok((token, wallet))
    }

    /// Whose token this is.
    pub(crate) fn wallet(&self, token: &str) -> Option<Address> {
        let tokens = lock(&self.tokens);
        let (wallet, end) = tokens.get(token)?;
        (Instant::now() < *end).then_some(*wallet)
    }
}

fn random() -> String {
    let mut bytes = [0_u8; 32];
    rand::rng().fill_bytes(&mut bytes);
    hex::encode(bytes)
}

/// Drops what has expired and, if that is not enough, the entry that would expire first.
fn make_room<V>(table: &mut HashMap<String, V>, end: impl Fn(&V) -> Instant) {
    if table.len() < MAX_ENTRIES {
        return;
    }
    let now = Instant::now();
    table.retain(|_key, value| end(value) > now);
    if table.len() >= MAX_ENTRIES
        && let Some(key) = table.iter().min_by_key(|(_, v)| end(v)).map(|(key, _)| key.clone())
    {
        table.remove(&key);
    }
}

/// A table is whole after each statement, so a panic elsewhere does not spoil it.
fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use alloy::signers::{SignerSync, local::PrivateKeySigner};

    use super::*;
    use crate::wire::sign_in_message;

    #[test]
    fn a_wallet_signs_in_once_per_nonce() {
        let provider = Address::repeat_byte(7);
        let sessions = Sessions::new(provider, 31337);
        let wallet = PrivateKeySigner::random();
        let sign = |message: &str| wallet.sign_message_sync(message.as_bytes()).unwrap().as_bytes();

        let message = sign_in_message(wallet.address(), provider, 31337, &sessions.nonce());
        let (token, who) = sessions.sign_in(&message, &sign(&message)).unwrap();
        assert_eq!(who, wallet.address());
        assert_eq!(sessions.wallet(&token), Some(who));
        assert_eq!(sessions.wallet("another"), None);

        let check = |message: &str, signature: &[u8; 65], wanted: &str| {
            let err = sessions.sign_in(message, signature).unwrap_err().to_string();
            assert!(err.contains(wanted), "{err}");
        };
        check(&message, &sign(&message), "nonce");
        check("hello", &sign("hello"), "EIP-4361");
        let other = sign_in_message(wallet.address(), Address::ZERO, 31337, &sessions.nonce());
        check(&other, &sign(&other), "is for");
        let other = sign_in_message(wallet.address(), provider, 1, &sessions.nonce());
        check(&other, &sign(&other), "chain 1");
        let other = sign_in_message(Address::ZERO, provider, 31337, &sessions.nonce());
        check(&other, &sign(&other), "signature");
    }

    #[test]
    fn tables_stay_bounded() {
        let sessions = Sessions::new(Address::ZERO, 1);
        for _ in 0..MAX_ENTRIES + 10 {
            sessions.nonce();
        }
        assert_eq!(sessions.nonces.lock().unwrap().len(), MAX_ENTRIES);
    }
}
