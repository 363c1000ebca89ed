//! A pod's secrets by name.

use std::{collections::BTreeMap, fmt};

use serde::{Deserialize, Deserializer, de};
use zeroize::Zeroizing;

use crate::{
    attest::Attested,
    envelope::{Context, Envelope, OpenError, SealError},
    key::{SealingKey, SealingPublicKey},
};

/// A pod's secrets by name: what is inside a secrets envelope, as a JSON object of names and hexadecimal digits.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Secrets(pub BTreeMap<String, Zeroizing<Vec<u8>>>);

impl Secrets {
    /// Seals them to a provider.
    ///
    /// # Errors
    /// When they are too large (about half of [`MAX_PLAINTEXT`](crate::MAX_PLAINTEXT) in all), or nothing can be sealed
    /// to `to`.
    ///
    /// # Panics
    /// When the system has no randomness to give.
    pub fn seal(&self, to: &SealingPublicKey, context: &Context) -> Result<Envelope, SealError> {
        Envelope::seal(to, context, &self.encode())
    }

    /// Seals them to the provider that `attested` is about, under the sealing key that its hardware vouched for.
    ///
    /// # Errors
    /// As [`seal`](Self::seal), and when the evidence is about another chain or provider than `context`.
    ///
    /// # Panics
    /// When the system has no randomness to give.
    pub fn seal_to_attested(
        &self,
        attested: &Attested,
        context: &Context,
    ) -> Result<Envelope, SealError> {
        let subject = attested.subject();
        if (subject.chain_id, subject.provider) != (context.chain_id, context.provider) {
            return Err(SealError::OtherEvidence);
        }
        self.seal(&subject.sealing_key, context)
    }

    /// The secrets in `envelope`.
    ///
    /// # Errors
    /// When it does not open with `key` for `context`, or holds something else.
    pub fn open(
        envelope: &Envelope,
        key: &SealingKey,
        context: &Context,
    ) -> Result<Self, OpenError> {
        let plaintext = key.open(envelope, context)?;
        let secrets: BTreeMap<String, Digits> = serde_json::from_slice(&plaintext)
            .map_err(|err| OpenError::NotSecrets(err.column()))?;
        Ok(Self(secrets.into_iter().map(|(name, Digits(value))| (name, value)).collect()))
    }

    /// Written in one piece: a buffer that grew would leave copies of secrets behind it.
    fn encode(&self) -> Zeroizing<Vec<u8>> {
        let entries = self.0.iter().map(|(name, value)| {
            // JSON's escapes are at most six times as long as what they stand for.
            6 * name.len() + 2 * value.len() + r#""":"","#.len()
        });
        let mut json = Zeroizing::new(Vec::with_capacity(entries.sum::<usize>() + 2));
        json.push(b'{');
        for (name, value) in &self.0 {
            if json.len() > 1 {
                json.push(b',');
            }
            json.extend_from_slice(serde_json::Value::from(name.as_str()).to_string().as_bytes());
            json.extend_from_slice(b":\"");
            let start = json.len();
            json.resize(start + 2 * value.len(), 0);
            hex::encode_to_slice(value, &mut json[start..]).expect("there is room for all digits");
            json.push(b'"');
        }
        json.push(b'}');
        json
    }
}

impl fmt::Debug for Secrets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.0.keys()).finish()
    }
}

/// A secret, out of its digits without a copy between.
struct Digits(Zeroizing<Vec<u8>>);

impl<'de> Deserialize<'de> for Digits {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_str(DigitsVisitor)
    }
}

struct DigitsVisitor;

impl de::Visitor<'_> for DigitsVisitor {
    type Value = Digits;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("hexadecimal digits")
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<Digits, E> {
        hex::decode(text).map(|bytes| Digits(Zeroizing::new(bytes))).map_err(E::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CONTEXT: Context =
        Context { chain_id: 1, leases: [1; 20], provider: [2; 20], account: [3; 32], pod: [4; 32] };

    fn secrets(entries: &[(&str, &[u8])]) -> Secrets {
        let owned =
            |(name, value): &(&str, &[u8])| (name.to_string(), Zeroizing::new(value.to_vec()));
        Secrets(entries.iter().map(owned).collect())
    }

    #[test]
    fn open_as_they_were_sealed() {
        let key = SealingKey::generate();
        for all in [
            secrets(&[]),
            secrets(&[("session_key", b"swordfish")]),
            secrets(&[("empty", b""), ("binary", &[0, 255, 10, 34]), ("\u{1}\"\\é", b"name")]),
        ] {
            let envelope = all.seal(&key.public(), &CONTEXT).unwrap();
            assert!(Secrets::open(&envelope, &key, &CONTEXT).unwrap() == all);
        }
    }

    #[test]
    fn are_written_without_growing() {
        let all = secrets(&[("\u{1}\u{2}\u{3}", &[1; 1_000]), ("b", b"")]);
        let json = all.encode();
        let needed = 18 + 6 + 2_000 + 6 + 6 + 2;
        assert_eq!(json.capacity(), needed);
        assert!(json.len() <= needed);
    }

    #[test]
    fn are_bounded() {
        let key = SealingKey::generate();
        let all = secrets(&[("a", &[0; crate::MAX_PLAINTEXT / 2])]);
        let sealed = all.seal(&key.public(), &CONTEXT);
        assert!(matches!(sealed, Err(SealError::TooLarge(_))));
    }

    #[test]
    fn debug_shows_names_only() {
        let all = secrets(&[("session_key", b"swordfish")]);
        assert_eq!(format!("{all:?}"), r#"{"session_key"}"#);
    }

    #[test]
    fn other_contents_are_refused_unseen() {
        let key = SealingKey::generate();
        for contents in
            ["swordfish", r#"{"a":"swordfish"}"#, r#"{"a":123456}"#, r#"{"a":"00"} x"#, "[]"]
        {
            let envelope = Envelope::seal(&key.public(), &CONTEXT, contents.as_bytes()).unwrap();
            let err = Secrets::open(&envelope, &key, &CONTEXT).unwrap_err();
            assert!(matches!(err, OpenError::NotSecrets(_)), "{contents}");
            let shown = format!("{err} {err:?}");
            assert!(!shown.contains("swordfish") && !shown.contains("123456"), "{shown}");
        }
    }

    /// Made once, by this code: what was sealed before an update opens after it.
    #[test]
    fn an_envelope_of_old_opens() {
        let key = SealingKey::from_bytes(&[0x42; 32]);
        let envelope = serde_json::from_str(include_str!("../tests/envelope-v1.json")).unwrap();
        let opened = Secrets::open(&envelope, &key, &CONTEXT).unwrap();
        assert!(opened == secrets(&[("session_key", b"swordfish")]));
    }
}
