//! Checks access before every handler: `Host` and `Origin` must belong to the service, so that no web page reaches it
//! through a browser, and the request must carry the secret if one is configured.

use std::net::{IpAddr, SocketAddr};

use actix_web::Error;
use actix_web::body::MessageBody;
use actix_web::dev::{ServiceRequest, ServiceResponse};
use actix_web::http::StatusCode;
use actix_web::http::header::{AUTHORIZATION, HOST, HeaderName, ORIGIN};
use actix_web::middleware::Next;
use actix_web::web::Data;
use greenroom_bridge::Token;

use super::app::Api;
use super::error::ApiError;
use crate::description::peer_uid;

/// The access policy.
#[derive(Debug, Clone)]
pub struct Guard {
    /// The secret, if one is configured.
    pub token: Option<Token>,
    /// The bound address.
    pub listen: SocketAddr,
    /// The user id that the process of a bridge must have; none to serve every user.
    pub bridge_uid: Option<u32>,
}

/// Passes a request on, or answers it with an error.
pub async fn guard<B: MessageBody + 'static>(
    request: ServiceRequest,
    next: Next<B>,
) -> Result<ServiceResponse<impl MessageBody>, Error> {
    let verdict = match request.app_data::<Data<Api>>() {
        Some(api) => api.guard.check(&request),
        None => Ok(()),
    };
    let requests = request
        .app_data::<Data<Api>>()
        .map(|api| api.requests.clone());
    let response = match verdict {
        Ok(()) => next.call(request).await?.map_into_left_body(),
        Err(refusal) => request.error_response(refusal).map_into_right_body(),
    };
    if let Some(requests) = requests {
        requests.count(&response);
    }
    Ok(response)
}

impl Guard {
    fn check(&self, request: &ServiceRequest) -> Result<(), ApiError> {
        let header = |name: HeaderName| {
            single(request, &name).map_err(|problem| foreign_header(name.as_str(), problem))
        };
        let uri = request.uri().authority();
        let uri = uri.map(|authority| authority.as_str());
        // A URI with a host of its own would take precedence.
        if let Some(host) = uri.filter(|host| !self.is_own_name(authority(host).0)) {
            return Err(foreign_header("host", host));
        }
        let host = header(HOST)?.or(uri);
        let host = host.ok_or_else(|| foreign_header("host", "missing"))?;
        let (name, port) = authority(host);
        if !self.is_own_name(name) {
            return Err(foreign_header("host", host));
        }
        if let Some(origin) = header(ORIGIN)? {
            self.check_origin(origin, port)?;
        }
        self.check_bridge_user(request)?;
        self.check_token(request.path(), single(request, &AUTHORIZATION))
    }

    /// Checks that the process of a bridge belongs to the user of this service, if the system knows it: its hello may say
    /// anything.
    fn check_bridge_user(&self, request: &ServiceRequest) -> Result<(), ApiError> {
        let (Some(own), true) = (
            self.bridge_uid,
            request.path() == greenroom_bridge::endpoint::PATH,
        ) else {
            return Ok(());
        };
        let peer = request.peer_addr().filter(|peer| peer.ip().is_loopback());
        match peer.and_then(|peer| peer_uid(peer, self.listen)) {
            Some(uid) if uid != own => Err(ApiError::new(
                StatusCode::FORBIDDEN,
                "foreign_user",
                format!("this service belongs to user {own}, not to user {uid}"),
                "set `bridge.any_uid` to serve other users",
            )),
            _ => Ok(()),
        }
    }

    /// Checks that an origin has an own name and the listening or the called port.
    fn check_origin(&self, origin: &str, called_at: Option<u16>) -> Result<(), ApiError> {
        let rest = origin
            .strip_prefix("http://")
            .or_else(|| origin.strip_prefix("https://"));
        let Some((name, port)) = rest.map(authority) else {
            return Err(foreign_header("origin", origin));
        };
        let same_port = port == Some(self.listen.port()) || port == called_at;
        if self.is_own_name(name) && same_port {
            Ok(())
        } else {
            Err(foreign_header("origin", origin))
        }
    }

    fn check_token(
        &self,
        path: &str,
        authorization: Result<Option<&str>, &'static str>,
    ) -> Result<(), ApiError> {
        // Public paths reveal nothing secret. A bridge may send its token in the hello frame, which is checked there.
        let is_public = matches!(
            path,
            "/healthz" | "/readyz" | "/docs" | "/openapi.json" | greenroom_bridge::endpoint::PATH
        );
        let Some(token) = self.token.as_ref().filter(|_| !is_public) else {
            return Ok(());
        };
        let problem = match authorization {
            Ok(None) => "a token is required".to_owned(),
            Ok(Some(authorization)) if !token.matches_header(authorization) => {
                "the token is not this service's".to_owned()
            }
            Ok(Some(_)) => return Ok(()),
            Err(problem) => format!("the header Authorization is {problem}"),
        };
        let hint = "send the service's token as `Authorization: Bearer …`";
        Err(ApiError::new(
            StatusCode::UNAUTHORIZED,
            "unauthorized",
            problem,
            hint,
        ))
    }

    /// Returns true for a loopback name, a loopback address and the bound address. A service on an unspecified address
    /// accepts all numeric addresses: a DNS rebinding attack needs a name.
    fn is_own_name(&self, name: &str) -> bool {
        if name.eq_ignore_ascii_case("localhost") {
            return true;
        }
        let in_brackets = name.strip_prefix('[').and_then(|it| it.strip_suffix(']'));
        let numeric = match in_brackets {
            Some(ip) => ip.parse().map(IpAddr::V6),
            None => name.parse().map(IpAddr::V4),
        };
        numeric.is_ok_and(|ip| {
            ip.is_loopback() || ip == self.listen.ip() || self.listen.ip().is_unspecified()
        })
    }
}

/// Returns the value of a header; none if it is missing.
///
/// # Errors
///
/// `given twice`, or `unreadable` if the value is not a text.
fn single<'a>(
    request: &'a ServiceRequest,
    name: &HeaderName,
) -> Result<Option<&'a str>, &'static str> {
    let mut values = request.headers().get_all(name);
    match (values.next(), values.next()) {
        (None, _) => Ok(None),
        (Some(value), None) => value.to_str().map(Some).map_err(|_| "unreadable"),
        (Some(_), Some(_)) => Err("given twice"),
    }
}

/// Splits `name:port`, `[::1]:port` or a name alone.
fn authority(text: &str) -> (&str, Option<u16>) {
    if text.ends_with(']') {
        return (text, None);
    }
    match text.rsplit_once(':') {
        Some((name, port)) if !port.is_empty() => match port.parse() {
            Ok(port) => (name, Some(port)),
            // Without a valid port the whole text is a foreign name.
            Err(_) => (text, None),
        },
        _ => (text, None),
    }
}

fn foreign_header(header: &str, value: &str) -> ApiError {
    ApiError::new(
        StatusCode::FORBIDDEN,
        if header == "origin" {
            "foreign_origin"
        } else {
            "foreign_host"
        },
        format!(
            "{header} {:?} is not this service's",
            greenroom::domain::task::cut(value, 100)
        ),
        "call it by the address it listens on, or by localhost",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn guard(listen: &str) -> Guard {
        Guard {
            token: None,
            listen: listen.parse().unwrap(),
            bridge_uid: None,
        }
    }

    #[test]
    fn loopback_and_listen_addresses_are_own_names() {
        let loopback = guard("127.0.0.1:7717");
        for ours in ["localhost", "LOCALHOST", "127.0.0.1", "[::1]", "127.8.8.8"] {
            assert!(loopback.is_own_name(ours), "{ours}");
        }
        for foreign in [
            "evil.example",
            "localhost.evil.example",
            "192.168.1.9",
            "0.0.0.0",
            "",
            "127.0.0.1.nip.io",
            "[127.0.0.1]",
            "[[[127.0.0.1]]]",
            "[::1",
            "[[::1]]",
        ] {
            assert!(!loopback.is_own_name(foreign), "{foreign}");
        }
        assert!(guard("192.168.1.9:80").is_own_name("192.168.1.9"));
        assert!(guard("0.0.0.0:80").is_own_name("192.168.1.9"));
        assert!(!guard("0.0.0.0:80").is_own_name("evil.example"));
    }

    #[test]
    fn authority_splits_name_and_port() {
        assert_eq!(authority("localhost:7717"), ("localhost", Some(7717)));
        assert_eq!(authority("[::1]:7717"), ("[::1]", Some(7717)));
        assert_eq!(authority("[::1]"), ("[::1]", None));
        assert_eq!(authority("localhost"), ("localhost", None));
        assert_eq!(authority("localhost:x"), ("localhost:x", None));
    }

    #[test]
    fn origin_of_another_port_is_foreign() {
        let guard = guard("127.0.0.1:7717");
        assert!(guard.check_origin("http://localhost:7717", None).is_ok());
        assert!(
            guard
                .check_origin("http://localhost:8000", Some(8000))
                .is_ok(),
            "through a tunnel"
        );
        for foreign in [
            "http://localhost:3000",
            "http://evil.example",
            "null",
            "http://evil.example:7717",
            "file://",
        ] {
            assert!(
                guard.check_origin(foreign, Some(7717)).is_err(),
                "{foreign}"
            );
        }
    }
}
