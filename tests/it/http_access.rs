//! Who may do what, and what foreign pages may not.

use hyper::Method;
use syncor::http::auth::{Auth, Need, ROUTES};
use syncor::store::keys::{self, Role};

use crate::support::api::Api;

/// The route with something in place of its parameters.
fn concrete(path: &str) -> String {
    path.replace("{id}", "018f0000-0000-7000-8000-000000000001").replace("{file}", "saga.json").replace("{code}", "conflict").replace("{token}", "x")
}

#[tokio::test]
async fn every_route_lets_in_the_roles_of_the_table_and_nobody_else() {
    let api = Api::start(Auth::keys()).await;
    let roles = [Role::Viewer, Role::Publisher, Role::Operator, Role::Admin];
    let mut headers = vec![(None, String::new()), (None, "Bearer hms_0000000000000000_x".to_owned()), (None, "Basic eDp5".to_owned())];
    for role in roles {
        let key = keys::create(&api.store, role, role.as_str(), "test", None).await.unwrap();
        headers.push((Some(role), format!("Bearer {}", key.expose())));
    }
    for (method, path, need) in ROUTES {
        for (role, header) in &headers {
            let method = Method::from_bytes(method.as_bytes()).unwrap();
            let answer = api.call(method, &concrete(path), &[("authorization", header)], "").await;
            let context = format!("{path} {role:?} {answer:?}");
            match (need, role) {
                (Need::Nothing, _) => assert!(answer.status != 401 && answer.status != 403, "{context}"),
                (_, None) => {
                    assert_eq!((answer.status, answer.problem().as_str()), (401, "unauthenticated"), "{context}");
                    assert!(answer.header("www-authenticate").starts_with("Bearer"), "{context}");
                }
                (need, Some(role)) if !need.is_met_by(*role) => {
                    assert_eq!((answer.status, answer.problem().as_str()), (403, "forbidden"), "{context}");
                }
                (_, Some(_)) => assert!(answer.status != 401 && answer.status != 403, "{context}"),
            }
            if answer.status >= 400 {
                answer.problem();
            }
        }
    }
}

#[tokio::test]
async fn the_plain_form_is_published_under_the_keys_name() {
    let api = Api::start(Auth::keys()).await;
    let key = keys::create(&api.store, Role::Publisher, "payroll", "test", None).await.unwrap();
    let bearer = format!("Bearer {}", key.expose());
    let headers = [("authorization", bearer.as_str()), ("content-type", "application/json")];
    let answer = api.call(Method::POST, "/v1/events", &headers, r#"{"type":"t"}"#).await;
    assert_eq!(answer.status, 201, "{answer:?}");
    let event = answer.header("location");
    let refused = api.call(Method::GET, event, &headers, "").await;
    assert_eq!((refused.status, refused.problem().as_str()), (403, "forbidden"), "who publishes does not read");
    assert!(refused.text.contains("viewer, operator or admin is needed"), "{refused:?}");
    let viewer = keys::create(&api.store, Role::Viewer, "desk", "test", None).await.unwrap();
    let bearer = format!("Bearer {}", viewer.expose());
    let headers = [("authorization", bearer.as_str()), ("content-type", "application/json")];
    assert_eq!(api.call(Method::GET, event, &headers, "").await.json()["source"], "payroll");
    assert_eq!(api.call(Method::POST, "/v1/events", &headers, r#"{"type":"t"}"#).await.status, 403, "who reads does not publish");
}

#[tokio::test]
async fn foreign_host_names_and_pages_are_refused() {
    let api = Api::open().await;
    let refused = async |method: &Method, headers: &[(&str, &str)]| {
        let headers = [&[("content-type", "application/json")], headers].concat();
        let answer = api.call(method.clone(), "/v1/events", &headers, r#"{"type":"t"}"#).await;
        if answer.status == 403 {
            assert_eq!(answer.problem(), "foreign_origin");
        }
        answer.status == 403
    };
    let own = format!("http://{}", api.address);
    assert!(!refused(&Method::POST, &[]).await);
    assert!(!refused(&Method::POST, &[("origin", &own), ("sec-fetch-site", "same-origin")]).await);
    assert!(!refused(&Method::GET, &[("origin", "https://evil.example"), ("sec-fetch-site", "cross-site")]).await);
    for headers in [("host", "evil.example"), ("host", "evil.example:7600"), ("host", "localhost.evil.example")] {
        assert!(refused(&Method::GET, &[headers]).await && refused(&Method::POST, &[headers]).await, "{headers:?}");
    }
    for headers in [("origin", "https://evil.example"), ("origin", "null"), ("sec-fetch-site", "cross-site"), ("sec-fetch-site", "same-site")] {
        assert!(refused(&Method::POST, &[headers]).await, "{headers:?}");
    }
    assert_eq!(api.count("select count(*) from syncor.events").await, 2);
}
