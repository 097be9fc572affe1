//! The broker's URL: read, and shown without its password.

use std::fmt;

use lapin::uri::AMQPUri;

/// Where the broker is, with user and password in it: shown without its password, whatever prints it.
#[derive(Clone, PartialEq, Eq)]
pub struct BrokerUrl(String);

/// A URL that names no broker. It never holds the URL itself, for there may be a password in it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a broker's URL ({0}); write it as amqp://user@host:5672/vhost or amqps://…")]
pub struct UrlError(String);

impl BrokerUrl {
    pub fn parse(text: &str) -> Result<BrokerUrl, UrlError> {
        let url = BrokerUrl(text.trim().to_owned());
        url.target().map(|_| url)
    }

    /// Whether a password stands in it, which must not come from the command line.
    pub fn has_password(&self) -> bool {
        let (user, _) = self.split();
        user.is_some_and(|user| user.contains(':'))
    }

    pub(super) fn target(&self) -> Result<AMQPUri, UrlError> {
        let text = &self.0;
        if !(text.starts_with("amqp://") || text.starts_with("amqps://")) {
            return Err(UrlError("it must begin with amqp:// or amqps://".to_owned()));
        }
        // The parser's own words may hold the whole text.
        let mut uri: AMQPUri =
            text.parse().map_err(|_| UrlError("it cannot be read; is a character not percent-encoded?".to_owned()))?;
        if uri.vhost.is_empty() {
            "/".clone_into(&mut uri.vhost);
        }
        // The parser takes an address of IPv6 for no host at all.
        let (_, (_, rest)) = self.split();
        if let Some((address, _)) = rest.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
            address.clone_into(&mut uri.authority.host);
        }
        Ok(uri)
    }

    /// User and password as written, and what stands around them: scheme before, host and the rest after.
    fn split(&self) -> (Option<&str>, (&str, &str)) {
        let start = self.0.find("://").map_or(0, |at| at + 3);
        let (scheme, rest) = self.0.split_at(start);
        let authority_end = rest.find(['/', '?']).unwrap_or(rest.len());
        match rest[..authority_end].rfind('@') {
            Some(at) => (Some(&rest[..at]), (scheme, &rest[at + 1..])),
            None => (None, (scheme, rest)),
        }
    }
}

impl Default for BrokerUrl {
    fn default() -> BrokerUrl {
        BrokerUrl("amqp://127.0.0.1:5672".to_owned())
    }
}

impl fmt::Display for BrokerUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (user, (scheme, rest)) = self.split();
        match user {
            None => write!(f, "{scheme}{rest}"),
            Some(user) => {
                let name = user.split(':').next().unwrap_or_default();
                let hidden = if user.contains(':') { ":***" } else { "" };
                write!(f, "{scheme}{name}{hidden}@{rest}")
            }
        }
    }
}

impl fmt::Debug for BrokerUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_is_shown_without_its_password() {
        for (text, shown) in [
            ("amqp://127.0.0.1:5672", "amqp://127.0.0.1:5672"),
            ("amqp://app:s3cret@broker:5672/%2f", "amqp://app:***@broker:5672/%2f"),
            ("amqp://app:p@ss@broker/v", "amqp://app:***@broker/v"),
            ("amqps://app@broker", "amqps://app@broker"),
        ] {
            let url = BrokerUrl::parse(text).unwrap();
            assert_eq!(url.to_string(), shown);
            assert_eq!(format!("{url:?}"), shown);
            assert_eq!(url.has_password(), shown.contains("***"), "{text}");
        }
    }

    #[test]
    fn a_wrong_url_is_refused_without_being_repeated() {
        for text in ["http://app:s3cret@broker", "app:s3cret@broker", "amqp://app:s3cret@broker:port", "amqp:s3cret"] {
            let error = BrokerUrl::parse(text).unwrap_err().to_string();
            assert!(!error.contains("s3cret"), "{error}");
        }
    }

    #[test]
    fn without_a_path_or_with_an_empty_one_the_vhost_is_the_default_one() {
        for (text, host, vhost) in [
            ("amqp://broker", "broker", "/"),
            ("amqp://broker/", "broker", "/"),
            ("amqp://broker/%2f", "broker", "/"),
            ("amqp://broker/shop", "broker", "shop"),
            ("amqp://[::1]:5672/shop", "::1", "shop"),
        ] {
            let uri = BrokerUrl::parse(text).unwrap().target().unwrap();
            assert_eq!((uri.authority.host.as_str(), uri.vhost.as_str()), (host, vhost), "{text}");
        }
    }
}
