use std::collections::{BTreeMap, BTreeSet};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::*;
use crate::{FaultOptions, differences_of};

const YEAR: &str = "startDateTime=2026-01-01T00:00:00Z&endDateTime=2027-06-01T00:00:00Z";

fn people_with_events() -> SimOptions {
    let mut options = options();
    options.apps[0].roles.push("Calendars.ReadWrite".into());
    options.population.calendar_events_per_user = 80;
    options
}

async fn truth(bench: &Bench) -> Vec<Value> {
    bench.sim.truth_of("calendar", &bench.user).await.unwrap()
}

/// Paths of the calendars, and which is the default one.
async fn calendars(bench: &Bench) -> Vec<(String, Value)> {
    let (all, _) = bench.all("/calendars", 2).await;
    all.into_iter().map(|one| (format!("/calendars/{}", one["id"].as_str().unwrap()), one)).collect()
}

async fn series(bench: &Bench) -> Vec<Value> {
    let mut found = Vec::new();
    for (calendar, _) in calendars(bench).await {
        let (events, _) = bench.all(&format!("{calendar}/events"), 9).await;
        found.extend(events.into_iter().filter(|event| event["type"] == "seriesMaster"));
    }
    found
}

fn weekly_in_berlin() -> Value {
    json!({
        "subject": "Stand-up", "body": {"contentType": "html", "content": "<p>x</p>"},
        "start": {"dateTime": "2026-10-05T09:00:00", "timeZone": "Europe/Berlin"},
        "end": {"dateTime": "2026-10-05T09:30:00", "timeZone": "W. Europe Standard Time"},
        "location": {"displayName": "Room 1"},
        "recurrence": {"pattern": {"type": "weekly", "interval": 1, "daysOfWeek": ["monday"]},
            "range": {"type": "numbered", "startDate": "2026-10-05", "numberOfOccurrences": 6}},
    })
}

fn starts(events: &[Value]) -> Vec<&str> {
    events.iter().map(|event| &event["start"]["dateTime"].as_str().unwrap()[..16]).collect()
}

#[tokio::test]
async fn calendars_are_in_groups_and_one_is_somebody_elses() {
    let bench = start(people_with_events()).await;
    let all = calendars(&bench).await;
    assert_eq!(all.iter().filter(|(_, one)| one["isDefaultCalendar"] == true).count(), 1);
    let owner = bench.json("/calendar").await["owner"]["address"].clone();
    assert_eq!(owner, bench.sim.users()[0].user_principal_name.as_str());
    let (shared, _) = all.iter().find(|(_, one)| one["owner"]["address"] != owner).unwrap();
    assert_eq!(bench.send(Method::POST, &format!("{shared}/events"), &weekly_in_berlin()).await.0, 403);
    let mut grouped = 0;
    for group in bench.all("/calendarGroups", 1).await.0 {
        grouped += bench
            .all(&format!("/calendarGroups/{}/calendars", group["id"].as_str().unwrap()), 1)
            .await
            .0
            .len();
    }
    assert_eq!(grouped, all.len());
    let (status, made) =
        bench.send(Method::POST, "/calendars", &json!({"name": "Calendar", "color": "lightRed"})).await;
    assert_eq!((status, made["color"].as_str()), (201, Some("lightRed")));
    let path = format!("/calendars/{}", made["id"].as_str().unwrap());
    let (status, renamed) = bench.send(Method::PATCH, &path, &json!({"name": "Other"})).await;
    assert_eq!(
        (status, renamed["name"].as_str(), renamed["color"].as_str()),
        (200, Some("Other"), Some("lightRed"))
    );
    assert_eq!(bench.request(Method::DELETE, &path).send().await.unwrap().status(), 204);
    let default = all.iter().find(|(_, one)| one["isDefaultCalendar"] == true).unwrap();
    assert_eq!(bench.request(Method::DELETE, &default.0).send().await.unwrap().status(), 400);
}

#[tokio::test]
async fn lists_have_single_events_and_masters_and_agree_with_the_truth() {
    let bench = start(people_with_events()).await;
    let mut listed = BTreeMap::new();
    for (calendar, _) in calendars(&bench).await {
        for event in bench.all(&format!("{calendar}/events"), 9).await.0 {
            assert!(event["type"] == "singleInstance" || event["type"] == "seriesMaster");
            listed.insert(event["id"].as_str().unwrap().to_owned(), event);
        }
    }
    let truth = truth(&bench).await;
    assert_eq!((listed.len(), truth.len()), (80, 80));
    for one in &truth {
        let event = &listed[one["id"].as_str().unwrap()];
        for name in
            ["subject", "body", "showAs", "location", "locations", "categories", "isAllDay", "sensitivity"]
        {
            assert_eq!(event[name], one[name], "{name}");
        }
        assert_eq!(event["start"]["dateTime"], format!("{}.0000000", one["start"].as_str().unwrap()));
        assert_eq!(event["start"]["timeZone"], "UTC");
        assert_eq!(event["originalStartTimeZone"], one["timeZone"]);
        assert_eq!(event["recurrence"], one["recurrence"]);
        assert_eq!(event["hasAttachments"], !one["attachments"].as_array().unwrap().is_empty());
        if event["type"] == "seriesMaster" {
            let at = format!("/events/{}", event["id"].as_str().unwrap());
            let whole = bench.json(&format!("{at}?$expand=exceptionOccurrences")).await;
            let exceptions = whole["exceptionOccurrences"].as_array().unwrap();
            assert_eq!(exceptions.len(), one["exceptions"].as_object().unwrap().len());
            let ended: BTreeSet<&str> = whole["cancelledOccurrences"]
                .as_array()
                .unwrap()
                .iter()
                .map(|oid| {
                    oid.as_str()
                        .unwrap()
                        .strip_prefix(&format!("OID.{}.", event["id"].as_str().unwrap()))
                        .unwrap()
                })
                .collect();
            let wanted: BTreeSet<&str> =
                one["cancelled"].as_array().unwrap().iter().map(|day| day.as_str().unwrap()).collect();
            assert_eq!(ended, wanted);
        }
    }
    let count = |name: &str| {
        truth.iter().filter(|one| one[name].as_object().is_some_and(|map| !map.is_empty())).count()
    };
    assert!(count("recurrence") > 5 && count("exceptions") > 2);
}

#[tokio::test]
async fn a_series_keeps_its_time_of_the_day_through_summer_time() {
    let bench = start(people_with_events()).await;
    let (status, master) = bench.send(Method::POST, "/events", &weekly_in_berlin()).await;
    assert_eq!((status, master["type"].as_str()), (201, Some("seriesMaster")), "{master}");
    assert_eq!(master["start"]["dateTime"], "2026-10-05T07:00:00.0000000");
    assert_eq!(master["recurrence"]["range"]["recurrenceTimeZone"], "W. Europe Standard Time");
    assert_eq!(master["locations"][0]["displayName"], "Room 1");
    let at = format!("/events/{}/instances?{YEAR}&$top=50", master["id"].as_str().unwrap());
    let (days, _) = bench.all(&at, 50).await;
    assert_eq!(
        starts(&days),
        [
            "2026-10-05T07:00",
            "2026-10-12T07:00",
            "2026-10-19T07:00",
            "2026-10-26T08:00",
            "2026-11-02T08:00",
            "2026-11-09T08:00"
        ]
    );
    assert!(days.iter().all(|day| day["seriesMasterId"] == master["id"] && day["type"] == "occurrence"));
    assert_eq!(days[3]["originalStart"], "2026-10-26T08:00:00Z");
    let there =
        bench.request(Method::GET, &at).header("prefer", "outlook.timezone=\"W. Europe Standard Time\"");
    let there: Value = there.send().await.unwrap().json().await.unwrap();
    assert!(starts(there["value"].as_array().unwrap()).iter().all(|start| start.ends_with("T09:00")));
    let nowhere = bench.request(Method::GET, "/events").header("prefer", "outlook.timezone=\"Nowhere\"");
    assert_eq!(nowhere.send().await.unwrap().status(), 400);
    assert_eq!(
        bench.get(&format!("/events/{}/instances", master["id"].as_str().unwrap())).await.status(),
        400
    );
}

#[tokio::test]
async fn a_day_of_a_series_is_changed_or_cancelled_on_its_own() {
    let bench = start(people_with_events()).await;
    let (_, master) = bench.send(Method::POST, "/events", &weekly_in_berlin()).await;
    let at = format!("/events/{}", master["id"].as_str().unwrap());
    let instances = format!("{at}/instances?{YEAR}");
    let (days, _) = bench.all(&instances, 50).await;
    let day = |number: usize| format!("/events/{}", days[number]["id"].as_str().unwrap());
    let later = json!({"subject": "Later", "start": {"dateTime": "2026-10-13T10:00:00", "timeZone": "UTC"},
        "end": {"dateTime": "2026-10-13T10:30:00", "timeZone": "UTC"}});
    let (status, exception) = bench.send(Method::PATCH, &day(1), &later).await;
    assert_eq!((status, exception["type"].as_str()), (200, Some("exception")), "{exception}");
    assert_eq!(exception["originalStart"], "2026-10-12T07:00:00Z");
    assert_eq!(bench.request(Method::DELETE, &day(2)).send().await.unwrap().status(), 204);
    assert_eq!(bench.get(&day(2)).await.status(), 404);
    let file = json!({"@odata.type": "#microsoft.graph.fileAttachment", "name": "a", "contentBytes": "QQ=="});
    assert_eq!(bench.send(Method::POST, &format!("{}/attachments", day(3)), &file).await.0, 201);
    let query = "$select=id,cancelledOccurrences,exceptionOccurrences&$expand=exceptionOccurrences";
    let whole = bench.json(&format!("{at}?{query}")).await;
    assert_ne!(whole["@odata.etag"], master["@odata.etag"]);
    let exceptions = whole["exceptionOccurrences"].as_array().unwrap();
    assert_eq!(
        exceptions.iter().map(|one| one["subject"].as_str().unwrap()).collect::<Vec<_>>(),
        ["Later", "Stand-up"]
    );
    assert_eq!(exceptions[1]["hasAttachments"], true);
    let id = master["id"].as_str().unwrap();
    assert_eq!(whole["cancelledOccurrences"], json!([format!("OID.{id}.2026-10-19")]));
    assert!(whole["subject"].is_null());
    assert_eq!(bench.json(&format!("{at}/attachments")).await["value"], json!([]));
    let (left, _) = bench.all(&instances, 50).await;
    assert_eq!(left.len(), 5);
    let moved = json!({"start": {"dateTime": "2026-10-05T11:00:00", "timeZone": "W. Europe Standard Time"},
        "end": {"dateTime": "2026-10-05T11:30:00", "timeZone": "W. Europe Standard Time"}});
    assert_eq!(bench.send(Method::PATCH, &at, &moved).await.0, 200);
    let whole = bench.json(&format!("{at}?{query}")).await;
    assert_eq!((&whole["exceptionOccurrences"], &whole["cancelledOccurrences"]), (&json!([]), &json!([])));
}

#[tokio::test]
async fn the_view_expands_series_within_its_window() {
    let bench = start(people_with_events()).await;
    let truth = truth(&bench).await;
    let view = "/calendarView?startDateTime=2026-08-01T00:00:00&endDateTime=2026-09-01T00:00:00";
    let (events, _) = bench.all(view, 7).await;
    assert!(events.iter().all(|event| event["type"] != "seriesMaster"));
    assert!(events.iter().any(|event| event["type"] == "occurrence"));
    let single: BTreeSet<&str> = events
        .iter()
        .filter(|event| event["type"] == "singleInstance")
        .map(|event| event["id"].as_str().unwrap())
        .collect();
    let wanted: BTreeSet<&str> = truth
        .iter()
        .filter(|one| one["calendar"] == "Calendar" && one["recurrence"].is_null())
        .filter(|one| {
            one["start"].as_str().unwrap() < "2026-09-01"
                && one["end"].as_str().unwrap() > "2026-08-01T00:00:00"
        })
        .map(|one| one["id"].as_str().unwrap())
        .collect();
    assert_eq!(single, wanted);
    assert_eq!(bench.get("/calendarView").await.status(), 400);
    assert_eq!(bench.get(&format!("/calendarView?{YEAR}&$select=createdDateTime")).await.status(), 400);
}

/// What a client has that followed a round: the state of every id, and the delta link.
async fn follow(bench: &Bench, from: &str, size: usize, known: &mut BTreeMap<String, Value>) -> String {
    let (lines, link) = bench.all(from, size).await;
    for line in lines {
        let id = line["id"].as_str().unwrap().to_owned();
        if line["@removed"].is_object() {
            known.remove(&id)
        } else {
            known.insert(id, line)
        };
    }
    link.unwrap()
}

#[tokio::test]
async fn delta_of_the_view_follows_every_change_and_calls_what_is_outside_removed() {
    let bench = start(people_with_events()).await;
    let window = "startDateTime=2026-07-01T00:00:00Z&endDateTime=2026-10-15T00:00:00Z";
    let first = format!("/calendarView/delta?{window}");
    let mut known = BTreeMap::new();
    let mut link = follow(&bench, &first, 3, &mut known).await;
    assert!(known.values().any(|line| line["type"] == "occurrence" && line["subject"].is_null()));
    assert!(known.values().any(|line| line["type"] == "seriesMaster" && line["subject"].is_string()));
    let outside = json!({"subject": "Far away", "start": {"dateTime": "2030-01-01T09:00:00", "timeZone": "UTC"},
        "end": {"dateTime": "2030-01-01T10:00:00", "timeZone": "UTC"}});
    let (status, made) = bench.send(Method::POST, "/events", &outside).await;
    assert_eq!(status, 201, "{made}");
    let (lines, next) = bench.all(&link, 50).await;
    assert_eq!((ids(&lines), lines[0]["@removed"].is_object()), (vec![made["id"].as_str().unwrap()], true));
    assert_eq!(
        bench.get(&format!("/events/{}", made["id"].as_str().unwrap())).await.status(),
        200,
        "it is there"
    );
    link = next.unwrap();
    for seed in 0..4 {
        let wanted = json!({"seed": seed, "workload": "calendar", "new": 6, "edited": 6, "moved": 3, "deleted": 4,
            "flags": 8, "users": [bench.user]});
        bench.control("evolve", wanted).await;
        link = follow(&bench, &link, 3, &mut known).await;
        // Of a deleted series only the series is called removed.
        let masters: BTreeSet<String> = known.keys().cloned().collect();
        known.retain(|_, line| line["seriesMasterId"].as_str().is_none_or(|master| masters.contains(master)));
        let mut fresh = BTreeMap::new();
        follow(&bench, &first, 50, &mut fresh).await;
        assert_eq!(
            known.keys().collect::<Vec<_>>(),
            fresh.keys().collect::<Vec<_>>(),
            "after evolution {seed}"
        );
        assert_eq!(known, fresh, "after evolution {seed}");
    }
    assert_eq!(bench.sim.counters().would_have_sent_mail, 0);
    let mut short = weekly_in_berlin();
    short["recurrence"]["range"]["startDate"] = "2026-08-03".into();
    let (_, made) = bench.send(Method::POST, "/events", &short).await;
    link = follow(&bench, &link, 3, &mut known).await;
    let rule = json!({"recurrence": {"pattern": {"type": "weekly", "interval": 2, "daysOfWeek": ["tuesday"]},
        "range": {"type": "noEnd", "startDate": "2026-08-03"}}});
    let path = format!("/events/{}", made["id"].as_str().unwrap());
    assert_eq!(bench.send(Method::PATCH, &path, &rule).await.0, 200);
    follow(&bench, &link, 3, &mut known).await;
    let mut fresh = BTreeMap::new();
    follow(&bench, &first, 50, &mut fresh).await;
    assert_eq!(known, fresh, "days of the former rule are gone");
    assert_eq!(bench.get(&format!("{first}&$select=id")).await.status(), 400);
    assert_eq!(bench.get("/calendarView/delta").await.status(), 400);
}

#[tokio::test]
async fn delta_of_one_calendar_can_be_switched_off_and_large_pages_time_out() {
    let bench = start(people_with_events()).await;
    let (calendar, _) =
        calendars(&bench).await.into_iter().find(|(_, one)| one["isDefaultCalendar"] == false).unwrap();
    let count = bench.all(&format!("{calendar}/events"), 50).await.0.len();
    let (events, link) = bench.all(&format!("{calendar}/events/delta"), 2).await;
    assert_eq!(events.len(), count);
    assert!(link.is_some());
    let view = format!("{calendar}/calendarView/delta?{YEAR}");
    bench.all(&view, 50).await;
    bench.control("options", json!({"per-calendar-delta": false})).await;
    for at in [&format!("{calendar}/events/delta"), &view, &"/events/delta".to_owned()] {
        assert_eq!(bench.get(at).await.status(), 400, "{at}");
    }
    bench.control("options", json!({"faults": {"calendar-delta-page-max": 10}})).await;
    let large = bench
        .request(Method::GET, &format!("/calendarView/delta?{YEAR}"))
        .header("prefer", "odata.maxpagesize=50");
    let large = large.send().await.unwrap();
    assert_eq!(large.status(), 503);
    assert!(large.bytes().await.unwrap().is_empty());
    bench.all(&format!("/calendarView/delta?{YEAR}"), 10).await;
}

#[tokio::test]
async fn mails_that_would_have_been_sent_are_counted_and_a_transaction_creates_once() {
    let bench = start(people_with_events()).await;
    let mut alone = weekly_in_berlin();
    alone["transactionId"] = "t-1".into();
    let (_, first) = bench.send(Method::POST, "/events", &alone).await;
    let (status, again) = bench.send(Method::POST, "/events", &alone).await;
    assert_eq!((status, &again["id"]), (201, &first["id"]));
    assert_eq!(first["transactionId"], "t-1");
    let path = format!("/events/{}", first["id"].as_str().unwrap());
    assert_eq!(bench.send(Method::PATCH, &path, &json!({"subject": "x"})).await.0, 200);
    assert_eq!(bench.send(Method::POST, &format!("{path}/cancel"), &json!({})).await.0, 400);
    assert_eq!(bench.request(Method::DELETE, &path).send().await.unwrap().status(), 204);
    assert_eq!(bench.sim.counters().would_have_sent_mail, 0);
    let mut meeting = weekly_in_berlin();
    meeting["attendees"] = json!([{"emailAddress": {"name": "A", "address": "a@x.example"}}]);
    let (_, one) = bench.send(Method::POST, "/events", &meeting).await;
    assert_eq!(one["attendees"][0]["type"], "required");
    let path = format!("/events/{}", one["id"].as_str().unwrap());
    bench.send(Method::PATCH, &path, &json!({"subject": "x"})).await;
    let (days, _) = bench.all(&format!("{path}/instances?{YEAR}"), 50).await;
    bench
        .request(Method::DELETE, &format!("/events/{}", days[0]["id"].as_str().unwrap()))
        .send()
        .await
        .unwrap();
    assert_eq!(bench.send(Method::POST, &format!("{path}/cancel"), &json!({"Comment": "no"})).await.0, 202);
    assert_eq!(bench.get(&path).await.status(), 404);
    let sent = bench.sim.counters().would_have_sent;
    let expected = [
        ("calendar_event_create", 1),
        ("calendar_event_change", 1),
        ("calendar_event_delete", 1),
        ("calendar_event_cancel", 1),
    ];
    assert_eq!(sent, expected.map(|(kind, count)| (kind.to_owned(), count)).into());
    assert_eq!(bench.sim.counters().would_have_sent_mail, 4);
}

#[tokio::test]
async fn attachments_of_events_come_whole_and_by_session() {
    let bench = start(people_with_events()).await;
    let (_, made) = bench.send(Method::POST, "/events", &weekly_in_berlin()).await;
    let at = format!("/events/{}/attachments", made["id"].as_str().unwrap());
    let small = json!({"@odata.type": "#microsoft.graph.fileAttachment", "name": "s.txt", "contentBytes": STANDARD.encode("small")});
    let (status, attached) = bench.send(Method::POST, &at, &small).await;
    assert_eq!(status, 201, "{attached}");
    let one = format!("{at}/{}", attached["id"].as_str().unwrap());
    assert_eq!(bench.get(&format!("{one}/$value")).await.text().await.unwrap(), "small");
    assert_eq!(bench.json(&one).await["contentBytes"], STANDARD.encode("small"));
    let data: Vec<u8> = (0..4_000_000_u32).map(|n| n as u8).collect();
    let item = json!({"AttachmentItem": {"attachmentType": "file", "name": "big.bin", "size": data.len()}});
    let (status, session) = bench.send(Method::POST, &format!("{at}/createUploadSession"), &item).await;
    assert_eq!(status, 201, "{session}");
    let range = format!("bytes 0-{}/{}", data.len() - 1, data.len());
    let put = bench.http.put(session["uploadUrl"].as_str().unwrap()).header("content-range", range);
    let last = put.body(data.clone()).send().await.unwrap();
    assert_eq!(last.status(), 201);
    let location = last.headers()["location"].to_str().unwrap();
    let id = location.split("Attachments('").nth(1).unwrap().trim_end_matches("')");
    assert_eq!(bench.get(&format!("{at}/{id}/$value")).await.bytes().await.unwrap().as_ref(), data);
    assert_eq!(bench.request(Method::DELETE, &one).send().await.unwrap().status(), 204);
    assert_eq!(bench.json(&at).await["value"].as_array().unwrap().len(), 1);
    assert_eq!(
        bench.json(&format!("/events/{}", made["id"].as_str().unwrap())).await["hasAttachments"],
        true
    );
}

/// Reads an event as it would be given back: in its own zone, with its attachments, without anybody invited.
async fn original(bench: &Bench, path: &str, zone: &str) -> Value {
    let request = bench.request(Method::GET, path).header("prefer", format!("outlook.timezone=\"{zone}\""));
    let mut event: Value = request.send().await.unwrap().json().await.unwrap();
    event["attachments"] = bench.json(&format!("{path}/attachments")).await["value"].clone();
    event["attendees"] = json!([]);
    event
}

async fn attach_what_is_missing(bench: &Bench, at: &str, wanted: &Value) {
    let have = bench.json(&format!("{at}/attachments")).await["value"].clone();
    for inherited in have.as_array().unwrap() {
        let one = format!("{at}/attachments/{}", inherited["id"].as_str().unwrap());
        assert_eq!(bench.request(Method::DELETE, &one).send().await.unwrap().status(), 204);
    }
    for attachment in wanted.as_array().unwrap() {
        assert_eq!(bench.send(Method::POST, &format!("{at}/attachments"), attachment).await.0, 201);
    }
}

#[tokio::test]
async fn what_graph_shows_is_enough_to_make_the_events_again_without_a_mail() {
    let bench = start(people_with_events()).await;
    let mut before = truth(&bench).await;
    let mut originals = Vec::new();
    for one in &before {
        let path = format!("/events/{}", one["id"].as_str().unwrap());
        let zone = one["timeZone"].as_str().unwrap();
        let series =
            bench.json(&format!("{path}?$expand=exceptionOccurrences&$select=cancelledOccurrences")).await;
        let mut exceptions = Vec::new();
        for exception in series["exceptionOccurrences"].as_array().into_iter().flatten() {
            let path = format!("/events/{}", exception["id"].as_str().unwrap());
            exceptions.push(original(&bench, &path, zone).await);
        }
        let event = original(&bench, &path, zone).await;
        originals.push((one["calendar"].clone(), event, exceptions, series["cancelledOccurrences"].clone()));
    }
    assert_eq!(
        bench.control("wipe", json!({"user": bench.user, "workload": "calendar"})).await["calendar_events"],
        80
    );
    assert_eq!(truth(&bench).await, Vec::<Value>::new());
    let mut made = BTreeMap::from([("Calendar".to_owned(), "/calendar".to_owned())]);
    for (calendar, event, exceptions, cancelled) in originals {
        let name = calendar.as_str().unwrap().to_owned();
        if !made.contains_key(&name) {
            let (_, calendar) = bench.send(Method::POST, "/calendars", &json!({"name": name})).await;
            made.insert(name.clone(), format!("/calendars/{}", calendar["id"].as_str().unwrap()));
        }
        let (status, copy) = bench.send(Method::POST, &format!("{}/events", made[&name]), &event).await;
        assert_eq!(status, 201, "{copy}");
        let instances = format!(
            "/events/{}/instances?startDateTime=2026-01-01T00:00:00Z&endDateTime=2029-01-01T00:00:00Z",
            copy["id"].as_str().unwrap()
        );
        let days =
            if copy["type"] == "seriesMaster" { bench.all(&instances, 900).await.0 } else { Vec::new() };
        for exception in exceptions {
            let day = days.iter().find(|day| day["originalStart"] == exception["originalStart"]).unwrap();
            let at = format!("/events/{}", day["id"].as_str().unwrap());
            let (status, answer) = bench.send(Method::PATCH, &at, &exception).await;
            assert_eq!(status, 200, "{answer}");
            attach_what_is_missing(&bench, &at, &exception["attachments"]).await;
        }
        for oid in cancelled.as_array().into_iter().flatten() {
            let date = oid.as_str().unwrap().rsplit('.').next().unwrap();
            let zone = event["start"]["timeZone"].as_str().unwrap();
            let request = bench
                .request(Method::GET, &instances)
                .header("prefer", format!("odata.maxpagesize=900, outlook.timezone=\"{zone}\""));
            let local: Value = request.send().await.unwrap().json().await.unwrap();
            let day = local["value"]
                .as_array()
                .unwrap()
                .iter()
                .find(|day| day["start"]["dateTime"].as_str().unwrap().starts_with(date))
                .unwrap();
            let at = format!("/events/{}", day["id"].as_str().unwrap());
            assert_eq!(bench.request(Method::DELETE, &at).send().await.unwrap().status(), 204);
        }
    }
    for one in &mut before {
        one["attendees"] = json!([]);
        for exception in one["exceptions"].as_object_mut().unwrap().values_mut() {
            exception["attendees"] = json!([]);
        }
    }
    assert_eq!(differences_of(&before, &truth(&bench).await), Vec::<String>::new());
    assert_eq!(bench.sim.counters().would_have_sent_mail, 0);
}

#[tokio::test]
async fn what_is_wrong_is_refused_and_faults_strike() {
    let bench = start(people_with_events()).await;
    for (name, wrong) in [
        ("start", Value::Null),
        ("start", json!({"dateTime": "2026-10-05T09:00:00", "timeZone": "Nowhere"})),
        ("end", json!({"dateTime": "2026-10-04T09:00:00", "timeZone": "UTC"})),
        ("isAllDay", json!(true)),
        ("showAs", json!("lost")),
        ("invented", json!(1)),
        (
            "recurrence",
            json!({"pattern": {"type": "relativeMonthly", "interval": 1}, "range": {"type": "noEnd", "startDate": "2026-10-05"}}),
        ),
    ] {
        let mut body = weekly_in_berlin();
        body[name] = wrong;
        assert_eq!(bench.send(Method::POST, "/events", &body).await.0, 400, "{name}");
    }
    assert_eq!(bench.get("/events/nonsense").await.status(), 400);
    let some = series(&bench).await;
    let faults = FaultOptions {
        rate_empty_page: 0.3,
        rate_duplicate_in_page: 0.5,
        rate_phantom_removed: 0.5,
        ..FaultOptions::default()
    };
    let bench = start(SimOptions { faults, ..people_with_events() }).await;
    let (lines, link) = bench.all(&format!("/calendarView/delta?{YEAR}"), 4).await;
    assert!(lines.iter().any(|line| line["@removed"].is_object()));
    let seen: BTreeSet<&str> = lines.iter().map(|line| line["id"].as_str().unwrap()).collect();
    assert!(seen.len() < lines.len(), "no duplicate came");
    assert!(some.iter().any(|one| seen.contains(one["id"].as_str().unwrap())));
    bench.control("expire-delta", json!({"user": bench.user, "workload": "calendar"})).await;
    assert_eq!(bench.get(&link.unwrap()).await.status(), 410);
    bench.control("options", json!({"faults": {"rate-corrupt-item": 1.0}})).await;
    assert_eq!(bench.get(&format!("/events/{}", some[0]["id"].as_str().unwrap())).await.status(), 500);
}
