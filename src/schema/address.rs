//! The address of an endpoint, and whether a plan may call its host.

use std::fmt;
use ureq::http::Uri;
use ureq::http::uri::Authority;

/// A host and its port.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Address {
    /// The name or number of the host, in lower case; an IPv6 number without brackets.
    pub host: String,
    /// The port.
    pub port: u16,
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            write!(f, "[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{}:{}", self.host, self.port)
        }
    }
}

/// Parses a URL.
///
/// # Errors
///
/// When it is none, or its scheme is not `http`.
pub fn of(url: &str) -> Result<(Uri, Address), String> {
    let fault = |why: &str| Err(format!("found `{}`, expected {why}", shown(url)));
    let Ok(uri) = url.parse::<Uri>() else { return fault("an address such as http://HOST:PORT/PATH") };
    let authority = uri.authority().cloned();
    match (uri.scheme_str(), authority) {
        (Some("https"), _) => fault(
            "a scheme of http: this version does not encrypt; a proxy on this machine can pass requests on over https",
        ),
        (Some("http"), Some(authority)) if authority.as_str().contains('@') => {
            fault("no name or password in the address; a header of `env:NAME` carries them")
        }
        (Some("http"), Some(authority)) => match parts(&authority) {
            Some((host, port)) => Ok((uri, Address { host, port: port.unwrap_or(80) })),
            None => fault("an address such as http://HOST:PORT/PATH"),
        },
        _ => fault("an address such as http://HOST:PORT/PATH"),
    }
}

/// An address as messages show it: without a name and a password.
fn shown(url: &str) -> String {
    let hidden = match (url.find("://"), url.rfind('@')) {
        (Some(scheme), Some(at)) if at > scheme => format!("{}...{}", &url[..scheme + 3], &url[at..]),
        _ => url.to_owned(),
    };
    hidden.escape_debug().to_string()
}

/// The host and the port of an authority without a name and a password; `None` if it has no host or no right port.
fn parts(authority: &Authority) -> Option<(String, Option<u16>)> {
    let port = match authority.as_str().strip_prefix(authority.host())? {
        "" => None,
        port => Some(port.strip_prefix(':')?.parse().ok()?),
    };
    let host = authority.host().trim_start_matches('[').trim_end_matches(']').to_ascii_lowercase();
    (!host.is_empty()).then_some((host, port))
}

/// Parses an entry of `limits.hosts`: a host with the port that it is limited to, if any.
///
/// # Errors
///
/// When it is neither `HOST` nor `HOST:PORT`.
pub fn entry(text: &str) -> Result<(String, Option<u16>), String> {
    let parsed = text.parse::<Authority>().ok().and_then(|authority| parts(&authority));
    parsed.ok_or_else(|| format!("found `{}`, expected HOST or HOST:PORT", text.escape_debug()))
}

/// Checks that a plan may call an address.
///
/// # Errors
///
/// When `limits.hosts` does not list it.
pub fn permit(address: &Address, hosts: &[String]) -> Result<(), String> {
    let lists = |text: &String| {
        entry(text)
            .is_ok_and(|(host, port)| host == address.host && port.is_none_or(|port| port == address.port))
    };
    if hosts.iter().any(lists) {
        return Ok(());
    }
    let listed = if hosts.is_empty() { "none".to_owned() } else { hosts.join(", ") };
    Err(format!("found host {address}, expected one of limits.hosts, which lists {listed}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_has_a_host_and_a_port() {
        for (url, expected) in [
            ("http://127.0.0.1:11434", "127.0.0.1:11434"),
            ("http://Example.org/a?b=c", "example.org:80"),
            ("http://[::1]:8080/x", "[::1]:8080"),
        ] {
            assert_eq!(of(url).unwrap().1.to_string(), expected);
        }
        for (url, expected) in [
            (
                "https://a.b/",
                "found `https://a.b/`, expected a scheme of http: this version does not encrypt",
            ),
            ("http://u:hunter2@a.b/", "found `http://...@a.b/`, expected no name or password"),
            ("ftp://a.b/", "expected an address such as http://HOST:PORT/PATH"),
            ("a.b", "expected an address such as"),
            ("/a", "expected an address such as"),
            ("http://", "expected an address such as"),
            ("http://a:99999/", "expected an address such as"),
            ("", "expected an address such as"),
        ] {
            let found = of(url).unwrap_err();
            assert!(found.contains(expected) && !found.contains("hunter2"), "{url}: {found}");
        }
    }

    #[test]
    fn only_listed_hosts_are_permitted() {
        let permits = |url: &str, host: &str| permit(&of(url).unwrap().1, &[host.to_owned()]).is_ok();
        for (url, host, expected) in [
            ("http://a.b:81/", "a.b", true),
            ("http://A.b:81/", "a.B:81", true),
            ("http://a.b/", "a.b:80", true),
            ("http://a.b:81/", "a.b:80", false),
            ("http://a.b.evil/", "a.b", false),
            ("http://xa.b/", "a.b", false),
            ("http://[::1]:5/", "[::1]", true),
            ("http://[::1]:5/", "[::1]:5", true),
            ("http://[::1]:5/", "[::1]:6", false),
            ("http://127.0.0.1/", "*", false),
        ] {
            assert_eq!(permits(url, host), expected, "{url} {host}");
        }
        for bad in ["", "http://a.b", "a b", "u@a.b", "a.b:", "a.b:x", "a.b:99999", "a.b/c"] {
            assert!(entry(bad).is_err(), "{bad}");
        }
    }
}
