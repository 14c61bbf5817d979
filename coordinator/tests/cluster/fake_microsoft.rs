//! The two things the coordinator asks Microsoft for: tokens and users.

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex},
};

use axum::{
    Form, Json, Router,
    extract::State,
    http::StatusCode,
    response::{IntoResponse, Response},
    routing::{get, post},
};
use base64::Engine as _;
use serde_json::{Value, json};

pub const SECRET: &str = "right-secret";
/// What an app that may read and write everything of a person has.
pub const ALL_ROLES: [&str; 7] = [
    "User.Read.All",
    "Mail.ReadWrite",
    "MailboxSettings.ReadWrite",
    "Calendars.ReadWrite",
    "Contacts.ReadWrite",
    "Tasks.ReadWrite.All",
    "Files.ReadWrite.All",
];

#[derive(Default)]
pub struct Directory {
    pub roles: Vec<&'static str>,
    /// The claims of every token request, empty where there were none.
    pub token_requests: Vec<String>,
}

#[derive(Clone)]
pub struct FakeMicrosoft {
    pub addr: SocketAddr,
    pub directory: Arc<Mutex<Directory>>,
}

impl FakeMicrosoft {
    pub async fn start() -> Self {
        let directory: Arc<Mutex<Directory>> = Arc::default();
        let router = Router::new()
            .route("/{tenant}/oauth2/v2.0/token", post(token))
            .route("/v1.0/users", get(users))
            .with_state(directory.clone());
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap();
        tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        Self { addr, directory }
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.addr)
    }
}

async fn token(
    State(directory): State<Arc<Mutex<Directory>>>,
    Form(form): Form<Vec<(String, String)>>,
) -> Response {
    if !form.contains(&("client_secret".to_owned(), SECRET.to_owned())) {
        let body = json!({ "error": "invalid_client", "error_codes": [7_000_215] });
        return (StatusCode::UNAUTHORIZED, Json(body)).into_response();
    }
    let mut directory = directory.lock().unwrap();
    let claims = form.into_iter().find(|(name, _)| name == "claims").map(|(_, value)| value);
    directory.token_requests.push(claims.unwrap_or_default());
    let number = directory.token_requests.len();
    let payload = json!({ "roles": directory.roles, "jti": number }).to_string();
    let payload = base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(payload);
    Json(json!({ "access_token": format!("h.{payload}.s"), "expires_in": 3600 })).into_response()
}

async fn users() -> Json<Value> {
    let user = |name: &str, mail: Option<&str>| {
        json!({ "id": format!("id-{name}"), "userPrincipalName": format!("{name}@contoso.test"), "mail": mail,
                "displayName": name, "accountEnabled": true })
    };
    Json(json!({ "value": [
        user("ann", Some("ann@contoso.test")), user("ben", Some("ben@contoso.test")), user("no-mailbox", None),
    ] }))
}
