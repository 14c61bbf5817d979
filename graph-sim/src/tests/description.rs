use std::path::PathBuf;

use super::*;
use crate::OpenApi;

pub(super) fn description() -> Option<PathBuf> {
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

fn everything(path: PathBuf) -> SimOptions {
    let mut options = SimOptions { openapi: Some(path), ..options() };
    let roles = ["Contacts.ReadWrite", "Tasks.ReadWrite.All", "Calendars.ReadWrite"];
    options.apps[0].roles.extend(roles.map(ToOwned::to_owned));
    let population = &mut options.population;
    (population.users, population.contacts_per_user) = (1, 40);
    (population.tasks_per_user, population.calendar_events_per_user) = (40, 60);
    options
}

/// Sends a create and gives back the path of what was made.
async fn made(bench: &Bench, at: &str, body: &Value) -> String {
    let (status, made) = bench.send(Method::POST, at, body).await;
    assert_eq!(status, 201, "{at}: {made}");
    format!("{at}/{}", made["id"].as_str().unwrap())
}

async fn gone(bench: &Bench, at: &str) {
    assert_eq!(bench.request(Method::DELETE, at).send().await.unwrap().status(), 204, "{at}");
}

#[tokio::test]
async fn contacts_match_microsofts_description() {
    let Some(path) = description() else { return };
    let bench = start(everything(path)).await;
    for at in [
        "/contactFolders",
        "/contactFolders/delta",
        "/contacts",
        "/contacts/delta",
        "/contactFolders/contacts/contacts",
    ] {
        bench.all(at, 7).await;
    }
    let folder = made(&bench, "/contactFolders", &json!({"displayName": "x"})).await;
    made(&bench, &format!("{folder}/childFolders"), &json!({"displayName": "y"})).await;
    bench.json(&folder).await;
    bench.send(Method::PATCH, &folder, &json!({"displayName": "z"})).await;
    let body = json!({"givenName": "A", "emailAddresses": [{"name": "A", "address": "a@x.example"}],
        "homeAddress": {"city": "x"}, "singleValueExtendedProperties": [{"id": RESTORE_KEY, "value": "k"}]});
    let contact = made(&bench, &format!("{folder}/contacts"), &body).await;
    bench.json(&format!("{contact}?$select=id,surname,primaryEmailAddress")).await;
    bench.send(Method::PATCH, &contact, &json!({"surname": "B"})).await;
    let photo = format!("{contact}/photo/$value");
    let put = bench.request(Method::PUT, &photo).header("content-type", "image/jpeg").body("x");
    assert_eq!(put.send().await.unwrap().status(), 200);
    bench.json(&format!("{contact}/photo")).await;
    bench.get(&photo).await;
    gone(&bench, &photo).await;
    bench.get(&photo).await;
    gone(&bench, &contact).await;
    gone(&bench, &folder).await;
    assert_eq!(bench.sim.counters().openapi_violations, Vec::<String>::new());
}

#[tokio::test]
async fn tasks_match_microsofts_description() {
    let Some(path) = description() else { return };
    let bench = start(everything(path)).await;
    bench.all("/todo/lists/delta", 2).await;
    for list in bench.all("/todo/lists", 2).await.0 {
        let tasks = format!("/todo/lists/{}/tasks", list["id"].as_str().unwrap());
        bench.all(&format!("{tasks}/delta"), 9).await;
        bench.all(&format!("{tasks}?$expand=linkedResources"), 9).await;
    }
    let list = made(&bench, "/todo/lists", &json!({"displayName": "x"})).await;
    bench.json(&list).await;
    bench.send(Method::PATCH, &list, &json!({"displayName": "y"})).await;
    let body = json!({"title": "t", "body": {"content": "c", "contentType": "text"}, "importance": "low",
        "dueDateTime": {"dateTime": "2026-12-01T00:00:00", "timeZone": "UTC"},
        "recurrence": {"pattern": {"type": "daily", "interval": 1}, "range": {"type": "noEnd", "startDate": "2026-12-01"}},
        "linkedResources": [{"webUrl": "https://x.example", "applicationName": "A", "displayName": "D"}]});
    let task = made(&bench, &format!("{list}/tasks"), &body).await;
    bench.send(Method::PATCH, &task, &json!({"status": "completed"})).await;
    let extension =
        json!({"@odata.type": "#microsoft.graph.openTypeExtension", "extensionName": "com.x", "key": "k"});
    made(&bench, &format!("{task}/extensions"), &extension).await;
    bench.json(&format!("{task}/extensions")).await;
    let file =
        json!({"@odata.type": "#microsoft.graph.taskFileAttachment", "name": "n", "contentBytes": "QQ=="});
    for (collection, body) in [
        ("checklistItems", json!({"displayName": "s", "isChecked": true})),
        (
            "linkedResources",
            json!({"webUrl": "https://y.example", "applicationName": "B", "displayName": "E"}),
        ),
        ("attachments", file),
    ] {
        let child = made(&bench, &format!("{task}/{collection}"), &body).await;
        bench.json(&format!("{task}/{collection}")).await;
        bench.json(&child).await;
        gone(&bench, &child).await;
    }
    let info = json!({"attachmentInfo": {"attachmentType": "file", "name": "n", "size": 3}});
    let (_, session) =
        bench.send(Method::POST, &format!("{task}/attachments/createUploadSession"), &info).await;
    let url = session["uploadUrl"].as_str().unwrap();
    bench.json(url).await;
    let put = bench.request(Method::PUT, &format!("{url}/content")).header("content-range", "bytes 0-2/3");
    let put = put.header("content-type", "application/octet-stream").body("abc");
    assert_eq!(put.send().await.unwrap().status(), 201);
    bench.json(&format!("{task}?$expand=attachments,checklistItems,linkedResources,extensions")).await;
    gone(&bench, &task).await;
    gone(&bench, &list).await;
    assert_eq!(bench.sim.counters().openapi_violations, Vec::<String>::new());
}

#[tokio::test]
async fn calendars_match_microsofts_description() {
    let Some(path) = description() else { return };
    let bench = start(everything(path)).await;
    let window = "startDateTime=2026-05-01T00:00:00Z&endDateTime=2026-12-01T00:00:00Z";
    for at in ["/calendarGroups", "/calendars", "/events", "/calendar/events"] {
        bench.all(at, 9).await;
    }
    for at in [
        "/calendarView",
        "/calendar/calendarView",
        "/calendarView/delta",
        "/calendar/calendarView/delta",
        "/events/delta",
    ] {
        bench.all(&format!("{at}?{window}"), 50).await;
    }
    bench.json("/calendar").await;
    let group = made(&bench, "/calendarGroups", &json!({"name": "g"})).await;
    bench.json(&group).await;
    made(&bench, &format!("{group}/calendars"), &json!({"name": "in it"})).await;
    bench.json(&format!("{group}/calendars")).await;
    let calendar = made(&bench, "/calendars", &json!({"name": "c", "color": "lightBlue"})).await;
    bench.send(Method::PATCH, &calendar, &json!({"name": "d"})).await;
    let body = json!({"subject": "s", "body": {"contentType": "html", "content": "<p>b</p>"},
        "start": {"dateTime": "2026-06-01T09:00:00", "timeZone": "UTC"}, "end": {"dateTime": "2026-06-01T10:00:00", "timeZone": "UTC"},
        "recurrence": {"pattern": {"type": "daily", "interval": 1}, "range": {"type": "numbered", "startDate": "2026-06-01", "numberOfOccurrences": 5}},
        "location": {"displayName": "l"}, "showAs": "free", "transactionId": "t",
        "singleValueExtendedProperties": [{"id": RESTORE_KEY, "value": "k"}]});
    let event = made(&bench, &format!("{calendar}/events"), &body).await;
    bench.send(Method::PATCH, &event, &json!({"subject": "r"})).await;
    let (days, _) = bench.all(&format!("{event}/instances?{window}"), 2).await;
    let day = format!("/events/{}", days[1]["id"].as_str().unwrap());
    bench.send(Method::PATCH, &day, &json!({"subject": "other"})).await;
    gone(&bench, &format!("/events/{}", days[2]["id"].as_str().unwrap())).await;
    bench
        .json(&format!(
            "{event}?$select=id,cancelledOccurrences,exceptionOccurrences&$expand=exceptionOccurrences"
        ))
        .await;
    let file = json!({"@odata.type": "#microsoft.graph.fileAttachment", "name": "n", "contentBytes": "QQ=="});
    let attachment = made(&bench, &format!("{day}/attachments"), &file).await;
    bench.json(&format!("{day}/attachments")).await;
    bench.json(&attachment).await;
    bench.get(&format!("{attachment}/$value")).await;
    let item =
        json!({"AttachmentItem": {"attachmentType": "file", "name": "b", "size": 10, "isInline": false}});
    bench.send(Method::POST, &format!("{day}/attachments/createUploadSession"), &item).await;
    bench.json(&format!("{day}?$expand=attachments")).await;
    gone(&bench, &attachment).await;
    for at in ["events/delta", "calendarView", "calendarView/delta"] {
        bench.all(&format!("{calendar}/{at}?{window}"), 50).await;
    }
    gone(&bench, &event).await;
    gone(&bench, &calendar).await;
    assert_eq!(bench.sim.counters().openapi_violations, Vec::<String>::new());
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
    assert_eq!(check("GET", "/users/u/calendarView/delta", &["startDateTime"], json!({})), 1);
    assert_eq!(check("GET", "/users/u/calendarView/delta", &["$skiptoken"], json!({})), 0);
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
