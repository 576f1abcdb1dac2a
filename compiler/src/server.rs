//! Addresses of servers that a spec or a user names: who receives what is sent there, and whether others can read it.

/// The address of an HTTP server, `https://HOST[:PORT][/PATH]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServerAddress {
    encrypted: bool,
    host: String,
}

impl ServerAddress {
    /// Parses an address. Only one spelling of each is accepted, so that every reader finds the same host in it.
    ///
    /// # Errors
    /// Why it is not valid.
    pub fn parse(text: &str) -> Result<Self, &'static str> {
        let (encrypted, rest) = match text.split_once("://") {
            Some(("https", rest)) => (true, rest),
            Some(("http", rest)) => (false, rest),
            _ => return Err("it must start with `https://` or `http://`"),
        };
        let (host, path) = rest.find('/').map_or((rest, ""), |start| rest.split_at(start));
        if !path.chars().all(|c| c.is_ascii_alphanumeric() || "/-._~%".contains(c)) {
            return Err("its path may have letters, digits, `/`, `-`, `.`, `_`, `~` and `%`");
        }
        let bracketed = host.strip_prefix('[').and_then(|rest| rest.split_once(']'));
        let (name, port) = match bracketed {
            Some((name, "")) => (name, "443"),
            Some((name, port)) => (name, port.strip_prefix(':').unwrap_or("none")),
            None => host.split_once(':').unwrap_or((host, "443")),
        };
        let valid = match bracketed {
            Some(_) => name.parse::<std::net::Ipv6Addr>().is_ok(),
            None => name
                .split('.')
                .all(|label| !label.is_empty() && label.chars().all(|c| c.is_ascii_alphanumeric() || "-_".contains(c))),
        };
        if !valid {
            return Err("its host must be a name or an address, without a user and a password");
        }
        if port.parse::<u16>().is_err() {
            return Err("its port must be a number up to 65535");
        }
        Ok(Self {
            encrypted,
            host: name.to_ascii_lowercase(),
        })
    }

    /// Whether a secret that is sent there is encrypted, or does not leave this machine.
    pub fn keeps_secrets(&self) -> bool {
        self.encrypted || self.is_this_machine()
    }

    /// Whether it is a server of this machine.
    pub fn is_this_machine(&self) -> bool {
        let address = self.host.parse::<std::net::IpAddr>();
        self.host == "localhost" || address.is_ok_and(|address| address.is_loopback())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_are_kept_by_encryption_or_on_this_machine() {
        for address in [
            "https://api.example.com/v1",
            "http://localhost",
            "http://LOCALHOST:8000/v1",
            "http://127.0.0.1:8000/v1/",
            "http://127.9.9.9",
            "http://[::1]:8000",
        ] {
            assert!(
                ServerAddress::parse(address).is_ok_and(|server| server.keeps_secrets()),
                "{address}"
            );
        }
        for address in [
            "http://api.example.com",
            "http://10.0.0.1/v1",
            "http://localhost.example.com",
            "http://127.0.0.1.example.com",
            "http://127.1",
            "http://[2001:db8::1]",
        ] {
            assert!(
                ServerAddress::parse(address).is_ok_and(|server| !server.keeps_secrets()),
                "{address}"
            );
        }
    }

    #[test]
    fn an_address_has_one_spelling() {
        for address in [
            "api.example.com",
            "ftp://example.com",
            "HTTPS://example.com",
            "https://",
            "https:///v1",
            "https://localhost@example.com",
            "http://user:password@localhost",
            "http://localhost\\@example.com",
            "http://example.com#@localhost",
            "http://localhost?x",
            "https://example.com/v1?key=x",
            "https://example.com:99999",
            "https://exa mple.com",
            "https://example..com",
            "http://[localhost]",
            "http://[::1]8000",
            "http://localhost:",
            "https://example.com/\n",
        ] {
            assert!(ServerAddress::parse(address).is_err(), "{address}");
        }
    }
}
