use std::path::PathBuf;

use super::*;
use crate::OpenApi;

fn description() -> Option<PathBuf> {
    let path = std::env::var_os("HOLDFAST_OPENAPI").map_or_else(
        || PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../shared/graph/openapi-subset.json"),
        PathBuf::from,
    );
    if path.is_file() {
        return Some(path);
    }
    println!("skipped: no openapi description at {}", path.display());
    None
}

#[tokio::test]
async fn calls_and_answers_match_microsofts_description() {
    let Some(path) = description() else { return };
    let mut options = SimOptions { openapi: Some(path), ..options() };
    (options.population.users, options.population.messages_per_user) = (2, 60);
    let bench = start(options).await;
    let root = format!("{}/v1.0/users", bench.sim.base_url());
    bench.all(&format!("{root}?$select=id,displayName,mail,accountEnabled,proxyAddresses&$top=1"), 1).await;
    bench.all(&format!("{root}/delta"), 1).await;
    bench.json(&format!("{root}/{}", bench.user)).await;
    bench.all("/mailFolders?includeHiddenFolders=true", 3).await;
    let (folders, _) = bench.all("/mailFolders/delta?$select=displayName,parentFolderId", 4).await;
    for folder in ids(&folders) {
        bench.all(&format!("/mailFolders/{folder}/messages/delta"), 9).await;
    }
    let expand = "$expand=singleValueExtendedProperties($filter=id%20eq%20'SystemTime%200x0E06')";
    bench
        .all(&format!("/mailFolders/inbox/messages?$select=id,isRead,internetMessageHeaders&{expand}"), 9)
        .await;
    for one in bench.sim.truth(&bench.user).await.unwrap().iter().take(30) {
        bench.get(&format!("/messages/{}/$value", one.id)).await.bytes().await.unwrap();
        bench.json(&format!("/messages/{}?{expand}", one.id)).await;
        let at = format!("/messages/{}/attachments", one.id);
        for attachment in
            bench.json(&format!("{at}?$expand=microsoft.graph.itemattachment/item")).await["value"]
                .as_array()
                .unwrap()
        {
            bench
                .get(&format!("{at}/{}/$value", attachment["id"].as_str().unwrap()))
                .await
                .bytes()
                .await
                .unwrap();
        }
    }
    let (_, folder) =
        bench.send(Method::POST, "/mailFolders", &json!({"displayName": "x", "isHidden": true})).await;
    let folder = folder["id"].as_str().unwrap().to_owned();
    let body = json!({"subject": "s", "body": {"contentType": "text", "content": "t"}, "importance": "low",
        "attachments": [{"@odata.type": "#microsoft.graph.fileAttachment", "name": "n", "contentBytes": "QQ=="}],
        "singleValueExtendedProperties": [{"id": "Integer 0x0E07", "value": "4"}]});
    let (_, made) = bench.send(Method::POST, &format!("/mailFolders/{folder}/messages"), &body).await;
    let at = format!("/messages/{}", made["id"].as_str().unwrap());
    let item =
        json!({"AttachmentItem": {"attachmentType": "file", "name": "b", "size": 10, "isInline": false}});
    bench.send(Method::POST, &format!("{at}/attachments/createUploadSession"), &item).await;
    bench.send(Method::PATCH, &at, &json!({"isRead": true})).await;
    bench.send(Method::POST, &format!("{at}/move"), &json!({"destinationId": "inbox"})).await;
    bench.get("/messages/nonsense").await;
    assert_eq!(bench.sim.counters().openapi_violations, Vec::<String>::new());
    bench.send(Method::PATCH, &at, &json!({"invented": 1})).await;
    bench.get("/mailFolders?$invented=1").await;
    bench.get("/messages/delta").await;
    let violations = bench.sim.counters().openapi_violations;
    assert!(violations.len() >= 2, "{violations:?}");
}

#[test]
fn deviations_are_found() {
    let Some(path) = description() else { return };
    let openapi = OpenApi::load(&path).unwrap();
    let check = |method: &str, path: &str, query: &[&str], body: Value| {
        openapi.check_request(method, path, query, Some(&body)).len()
    };
    assert_eq!(check("POST", "/users/u/mailFolders/inbox/messages", &[], json!({"subject": "s"})), 0);
    assert_eq!(check("POST", "/users/u/mailFolders/f/messages", &[], json!({"subject": 1})), 1);
    assert_eq!(check("POST", "/users/u/mailFolders/f/messages", &[], json!({"importance": "huge"})), 1);
    assert_eq!(check("POST", "/users/u/mailFolders/f/childFolders", &[], json!({"name": "n"})), 1);
    assert_eq!(check("GET", "/users/u/messages/delta", &[], json!({})), 1);
    assert_eq!(check("GET", "/users/u/mailFolders", &["$nope"], json!({})), 1);
    assert_eq!(check("DELETE", "/users", &[], json!({})), 1);
    assert_eq!(check("GET", "/users/u/messages/m/attachments/a/$value", &[], json!({})), 0);
    assert_eq!(
        openapi.check_select("GET", "/users/u/mailFolders/f/messages", &["id", "colour"]).len(),
        0,
        "open type"
    );
    assert_eq!(openapi.check_select("GET", "/users/u/mailFolders", &["id", "colour"]).len(), 1);
    let answer = json!({"value": [{"id": "1", "displayName": 5}]});
    assert_eq!(openapi.check_response("GET", "/users/u/mailFolders", 200, &answer).len(), 1);
    let removed = json!({"value": [{"id": "1", "@removed": {"reason": "deleted"}}], "@odata.deltaLink": "x"});
    let delta = "/users/u/mailFolders/f/messages/delta";
    assert_eq!(openapi.check_response("GET", delta, 200, &removed).len(), 0);
    assert_eq!(openapi.check_response("GET", delta, 410, &json!({"error": {"code": "x"}})).len(), 1);
}
