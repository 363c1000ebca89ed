//! Accounts by name: a wallet's accounts differ in their salt, and a salt is the hash of a name. An account that was
//! made elsewhere, whose name nobody here knows, goes by its salt.

use std::{collections::BTreeSet, convert::Infallible, fmt, str::FromStr};

use alloy::primitives::{Address, B256, keccak256};

/// The account that is used where none is named.
const DEFAULT: &str = "default";

/// The name of one of a wallet's accounts.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct AccountName(String);

impl AccountName {
    /// What tells it from the wallet's other accounts.
    pub(crate) fn salt(&self) -> B256 {
        match self.0.strip_prefix("0x").filter(|hex| hex.len() == 64) {
            Some(hex) => hex.parse().unwrap_or_else(|_err| keccak256(&self.0)),
            None => keccak256(&self.0),
        }
    }

    /// What an account with this salt is called, among `names`.
    pub(crate) fn of_salt(salt: B256, names: &BTreeSet<Self>) -> Self {
        let known = names.iter().find(|name| name.salt() == salt);
        known.cloned().unwrap_or_else(|| Self(salt.to_string()))
    }

    /// The account's id in Payments.
    pub(crate) fn id(&self, owner: Address) -> B256 {
        chain::account_id(owner, self.salt())
    }

    /// What to append to a command that has to name it: nothing for the default one.
    pub(crate) fn option(&self) -> String {
        if *self == Self::default() { String::new() } else { format!(" --account {self}") }
    }
}

impl Default for AccountName {
    fn default() -> Self {
        Self(DEFAULT.to_owned())
    }
}

impl FromStr for AccountName {
    type Err = Infallible;

    fn from_str(text: &str) -> Result<Self, Infallible> {
        Ok(Self(text.to_owned()))
    }
}

impl fmt::Display for AccountName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_make_different_accounts() {
        let owner = Address::repeat_byte(1);
        let shop: AccountName = "shop".parse().unwrap();
        assert_ne!(shop.id(owner), AccountName::default().id(owner));
        assert_ne!(shop.id(owner), shop.id(Address::repeat_byte(2)));
        assert_eq!(shop.option(), " --account shop");
        assert_eq!(AccountName::default().option(), "");
    }

    #[test]
    fn an_unknown_account_goes_by_its_salt() {
        let shop: AccountName = "shop".parse().unwrap();
        let named = AccountName::of_salt(shop.salt(), &BTreeSet::from([shop.clone()]));
        assert_eq!(named, shop);
        let unnamed = AccountName::of_salt(shop.salt(), &BTreeSet::new());
        assert_ne!(unnamed, shop);
        assert_eq!(unnamed.salt(), shop.salt());
        assert_eq!(unnamed.to_string().parse::<AccountName>().unwrap().salt(), shop.salt());
    }
}
