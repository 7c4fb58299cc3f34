//! Who may call: the `Host` and `Origin` of a request must be ours, so that no web page reaches the service through
//! its reader's browser, and the secret must be there when one is configured. Runs before every handler.

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

/// What a request is measured against.
#[derive(Debug, Clone)]
pub struct Guard {
    /// The secret, if one is configured.
    pub token: Option<Token>,
    /// Where the service listens.
    pub listen: SocketAddr,
}

/// Lets a request pass, or answers it with the refusal.
pub async fn guard<B: MessageBody + 'static>(
    request: ServiceRequest,
    next: Next<B>,
) -> Result<ServiceResponse<impl MessageBody>, Error> {
    let verdict = match request.app_data::<Data<Api>>() {
        Some(api) => api.guard.judge(&request),
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
    fn judge(&self, request: &ServiceRequest) -> Result<(), ApiError> {
        let header = |name: HeaderName| -> Result<Option<&str>, ApiError> {
            let mut values = request.headers().get_all(&name);
            match (values.next(), values.next()) {
                (None, _) => Ok(None),
                (Some(value), None) => value
                    .to_str()
                    .map(Some)
                    .map_err(|_| foreign(name.as_str(), "unreadable")),
                (Some(_), Some(_)) => Err(foreign(name.as_str(), "given twice")),
            }
        };
        let host = header(HOST)?.or_else(|| {
            request
                .uri()
                .authority()
                .map(|authority| authority.as_str())
        });
        let host = host.ok_or_else(|| foreign("host", "missing"))?;
        let (name, port) = authority(host);
        if !self.is_ours(name) {
            return Err(foreign("host", host));
        }
        if let Some(origin) = header(ORIGIN)? {
            self.judge_origin(origin, port)?;
        }
        self.judge_token(request.path(), header(AUTHORIZATION)?)
    }

    /// A page of ours has our name, and the port we listen on or were called at.
    fn judge_origin(&self, origin: &str, called_at: Option<u16>) -> Result<(), ApiError> {
        let rest = origin
            .strip_prefix("http://")
            .or_else(|| origin.strip_prefix("https://"));
        let Some((name, port)) = rest.map(authority) else {
            return Err(foreign("origin", origin));
        };
        let same_port = port == Some(self.listen.port()) || port == called_at;
        if self.is_ours(name) && same_port {
            Ok(())
        } else {
            Err(foreign("origin", origin))
        }
    }

    fn judge_token(&self, path: &str, given: Option<&str>) -> Result<(), ApiError> {
        // Health and the description of the API say nothing worth a secret; a bridge may bring its token in the hello and is judged there.
        let open = matches!(
            path,
            "/healthz" | "/readyz" | "/docs" | "/openapi.json" | greenroom_bridge::endpoint::PATH
        );
        let Some(token) = self.token.as_ref().filter(|_| !open) else {
            return Ok(());
        };
        let problem = match given {
            None => "a token is required",
            Some(given) if !token.matches_header(given) => "the token is not this service's",
            Some(_) => return Ok(()),
        };
        let hint = "send the service's token as `Authorization: Bearer …`";
        Err(ApiError::new(
            StatusCode::UNAUTHORIZED,
            "unauthorized",
            problem,
            hint,
        ))
    }

    /// A loopback name or address, or the one we listen on. On an unspecified address every numeric one is ours: what a
    /// page needs to reach us against our will is a name of its own.
    fn is_ours(&self, name: &str) -> bool {
        if name.eq_ignore_ascii_case("localhost") {
            return true;
        }
        let numeric = name
            .trim_start_matches('[')
            .trim_end_matches(']')
            .parse::<IpAddr>();
        numeric.is_ok_and(|ip| {
            ip.is_loopback() || ip == self.listen.ip() || self.listen.ip().is_unspecified()
        })
    }
}

/// Name and port of `name:port`, `[::1]:port` or a name alone.
fn authority(text: &str) -> (&str, Option<u16>) {
    if text.ends_with(']') {
        return (text, None);
    }
    match text.rsplit_once(':') {
        Some((name, port)) if !port.is_empty() => match port.parse() {
            Ok(port) => (name, Some(port)),
            // Not a port: the whole is a name, and none of ours.
            Err(_) => (text, None),
        },
        _ => (text, None),
    }
}

fn foreign(header: &str, value: &str) -> ApiError {
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
        }
    }

    #[test]
    fn loopback_and_the_own_address_are_ours() {
        let loopback = guard("127.0.0.1:7717");
        for ours in ["localhost", "LOCALHOST", "127.0.0.1", "[::1]", "127.8.8.8"] {
            assert!(loopback.is_ours(ours), "{ours}");
        }
        for foreign in [
            "evil.example",
            "localhost.evil.example",
            "192.168.1.9",
            "0.0.0.0",
            "",
            "127.0.0.1.nip.io",
        ] {
            assert!(!loopback.is_ours(foreign), "{foreign}");
        }
        assert!(guard("192.168.1.9:80").is_ours("192.168.1.9"));
        assert!(guard("0.0.0.0:80").is_ours("192.168.1.9"));
        assert!(!guard("0.0.0.0:80").is_ours("evil.example"));
    }

    #[test]
    fn names_are_told_from_ports() {
        assert_eq!(authority("localhost:7717"), ("localhost", Some(7717)));
        assert_eq!(authority("[::1]:7717"), ("[::1]", Some(7717)));
        assert_eq!(authority("[::1]"), ("[::1]", None));
        assert_eq!(authority("localhost"), ("localhost", None));
        assert_eq!(authority("localhost:x"), ("localhost:x", None));
    }

    #[test]
    fn a_page_of_another_port_is_foreign() {
        let guard = guard("127.0.0.1:7717");
        assert!(guard.judge_origin("http://localhost:7717", None).is_ok());
        assert!(
            guard
                .judge_origin("http://localhost:8000", Some(8000))
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
                guard.judge_origin(foreign, Some(7717)).is_err(),
                "{foreign}"
            );
        }
    }
}
