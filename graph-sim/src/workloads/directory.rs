//! `/users`: the people of the tenant.

use crate::http::{Answer, Call, Refusal, Reply, refuse};
use crate::json::{list_of, string, text};
use crate::people::SimUser;
use crate::query::Query;
use crate::workloads::backend::Backend;
use crate::workloads::route::Route;
use crate::workloads::{Roles, Workload};

const DEFAULT_PAGE: usize = 100;
const MAX_PAGE: usize = 999;
const DEFAULT_FIELDS: [&str; 6] =
    ["displayName", "givenName", "jobTitle", "mail", "officeLocation", "surname"];

/// The registry's entry.
pub(crate) struct Directory;

impl Workload for Directory {
    fn name(&self) -> &'static str {
        "directory"
    }

    fn backend(&self) -> Backend {
        Backend::Directory
    }

    fn roles(&self) -> Roles {
        Roles {
            read: &["User.Read.All", "User.ReadBasic.All", "User.ReadWrite.All", "Directory.Read.All"],
            write: &["User.ReadWrite.All"],
        }
    }

    fn routes(&self) -> Vec<Route> {
        vec![
            Route::get("users", "user_list", list),
            Route::get("users/delta", "user_delta", delta),
            Route::get("users/{user}", "user_get", one),
        ]
    }
}

fn list(call: &Call) -> Answer {
    if let Some(filter) = call.query.get("$filter") {
        let known = ["accountEnabled eq true", "userType eq 'Member'"];
        if !known.contains(&filter) {
            return Err(refuse(400, "Request_UnsupportedQuery", format!("Unsupported filter: {filter}")));
        }
    }
    let bad = |text: String| refuse(400, "Request_BadRequest", text);
    let size = call.query.number("$top").map_err(bad)?.unwrap_or(DEFAULT_PAGE).clamp(1, MAX_PAGE);
    let skip = match call.query.get("$skiptoken") {
        None => 0,
        Some(token) => {
            token.parse().map_err(|_| refuse(400, "Directory_ExpiredPageToken", "Page token expired."))?
        }
    };
    page(call, skip, size, None)
}

/// One round that lists everybody; people do not change here, so later rounds are empty.
fn delta(call: &Call) -> Answer {
    if call.query.get("$deltatoken").is_some() {
        return page(call, usize::MAX, 1, Some("end"));
    }
    page(call, 0, usize::MAX, Some("end"))
}

fn page(call: &Call, skip: usize, size: usize, delta: Option<&str>) -> Answer {
    let people: Vec<&SimUser> = call.world.people.users().skip(skip).take(size).collect();
    let fields = fields(call)?;
    let mut out = b"{".to_vec();
    text(&mut out, "@odata.context", &format!("{}/v1.0/$metadata#users", call.base));
    out.extend_from_slice(b",\"value\":");
    list_of(&mut out, &people, |out, user| write(out, user, &fields));
    let next = skip.saturating_add(people.len());
    if let Some(token) = delta {
        let query = Query(vec![("$deltatoken".into(), token.into())]);
        text(&mut out, "@odata.deltaLink", &call.link(&query));
    } else if next < call.world.people.len() {
        let mut query = call.query.without(&["$skiptoken"]);
        query.0.push(("$skiptoken".into(), next.to_string()));
        text(&mut out, "@odata.nextLink", &call.link(&query));
    }
    out.push(b'}');
    Ok(Reply::Json(200, out))
}

fn one(call: &Call) -> Answer {
    let name = call.param("user").unwrap_or_default();
    let missing = || {
        refuse(
            404,
            "Request_ResourceNotFound",
            format!(
                "Resource '{name}' does not exist or one of its queried reference-property objects are not present."
            ),
        )
    };
    let user = call.world.people.user(call.world.people.find(name).ok_or_else(missing)?);
    let mut out = Vec::new();
    write(&mut out, user, &fields(call)?);
    Ok(Reply::Json(200, out))
}

fn fields(call: &Call) -> Result<Vec<String>, Refusal> {
    let mut fields: Vec<String> = match call.query.get("$select") {
        None => DEFAULT_FIELDS.iter().map(ToString::to_string).collect(),
        Some(list) => list.split(',').map(|name| name.trim().to_owned()).collect(),
    };
    if call.query.get("$select").is_none() {
        fields.push("userPrincipalName".into());
        fields.push("id".into());
    }
    Ok(fields)
}

fn write(out: &mut Vec<u8>, user: &SimUser, fields: &[String]) {
    out.push(b'{');
    text(out, "id", &user.id);
    for field in fields {
        let value = match field.to_ascii_lowercase().as_str() {
            "displayname" => &user.display_name,
            "givenname" => &user.given_name,
            "surname" => &user.surname,
            "userprincipalname" | "mail" => &user.user_principal_name,
            "jobtitle" => &user.job_title,
            "department" => &user.department,
            "officelocation" => &user.office_location,
            "usertype" => "Member",
            "preferredlanguage" => "en-US",
            "createddatetime" => "2023-01-09T08:00:00Z",
            "accountenabled" => {
                out.extend_from_slice(b",\"accountEnabled\":true");
                continue;
            }
            "proxyaddresses" => {
                out.extend_from_slice(b",\"proxyAddresses\":[");
                string(out, &format!("SMTP:{}", user.user_principal_name));
                out.push(b']');
                continue;
            }
            "assignedlicenses" | "businessphones" | "assignedplans" => {
                out.extend_from_slice(format!(",\"{field}\":[]").as_bytes());
                continue;
            }
            _ => continue,
        };
        text(out, field, value);
    }
    out.push(b'}');
}
