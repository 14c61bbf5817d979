//! `/calendars` and `/calendarGroups`.

use serde_json::{Value, json};

use crate::http::{Answer, Call, Refusal, Reply, refuse};
use crate::ids::Missing;
use crate::json::change_key;
use crate::workloads::calendar::store::{Calendar, CalendarStore, Group};
use crate::workloads::objects::Object;
use crate::workloads::objects::filter::Condition;
use crate::workloads::objects::page;
use crate::workloads::objects::schema::{Schema, Shape, object};
use crate::workloads::objects::view::View;

const SCHEMA: Schema = Schema {
    name: "calendar",
    properties: &[
        ("id", Shape::Fixed),
        ("allowedOnlineMeetingProviders", Shape::Fixed),
        ("canEdit", Shape::Fixed),
        ("canShare", Shape::Fixed),
        ("canViewPrivateItems", Shape::Fixed),
        ("changeKey", Shape::Fixed),
        ("defaultOnlineMeetingProvider", Shape::Fixed),
        ("hexColor", Shape::Fixed),
        ("isDefaultCalendar", Shape::Fixed),
        ("isRemovable", Shape::Fixed),
        ("isTallyingResponses", Shape::Fixed),
        ("owner", Shape::Fixed),
        ("name", Shape::Text),
        (
            "color",
            Shape::Choice(&[
                "auto",
                "lightBlue",
                "lightGreen",
                "lightOrange",
                "lightGray",
                "lightYellow",
                "lightTeal",
                "lightPink",
                "lightBrown",
                "lightRed",
                "maxColor",
            ]),
        ),
    ],
};
const GROUP_SCHEMA: Schema = Schema {
    name: "calendarGroup",
    properties: &[
        ("id", Shape::Fixed),
        ("changeKey", Shape::Fixed),
        ("classId", Shape::Fixed),
        ("name", Shape::Text),
    ],
};
/// The class of the group every mailbox has.
const DEFAULT_CLASS: &str = "0006f0b7-0000-0000-c000-000000000046";
const OWN_CLASS: &str = "00000000-0000-0000-0000-000000000000";

/// The calendar a path names, the default one when it names none.
pub(crate) fn named(call: &Call, store: &CalendarStore) -> Result<u64, Missing> {
    call.param("calendar").map_or(Ok(store.default_calendar), |id| store.find_calendar(id))
}

/// The same, if the person may write into it.
pub(crate) fn writable(call: &Call, store: &CalendarStore) -> Result<u64, Refusal> {
    let key = named(call, store)?;
    if store.calendars.get(key).is_some_and(|calendar| calendar.value.shared_by.is_some()) {
        return Err(refuse(403, "ErrorAccessDenied", "The calendar belongs to somebody else."));
    }
    Ok(key)
}

fn shown(call: &Call, store: &CalendarStore, calendar: &Object<Calendar>, view: &View) -> Value {
    let Calendar { name, color, shared_by } = &calendar.value;
    let owner = match shared_by {
        Some((name, address)) => json!({"name": name, "address": address}),
        None => {
            let person = call.world.people.user(call.user).person();
            json!({"name": person.name, "address": person.address})
        }
    };
    let (is_default, is_own) = (calendar.key == store.default_calendar, shared_by.is_none());
    let fields = json!({
        "id": store.calendar_id(calendar.key), "name": name, "color": color, "hexColor": "",
        "changeKey": change_key(calendar.seq), "isDefaultCalendar": is_default, "canShare": is_own,
        "canViewPrivateItems": is_own, "canEdit": is_own, "isTallyingResponses": is_default,
        "isRemovable": !is_default, "allowedOnlineMeetingProviders": ["teamsForBusiness"],
        "defaultOnlineMeetingProvider": "teamsForBusiness", "owner": owner,
    });
    view.show(fields)
}

/// The group a path names, if it names one.
fn group(call: &Call, store: &CalendarStore) -> Result<Option<u64>, Missing> {
    call.param("group").map(|id| store.find_group(id)).transpose()
}

pub(crate) fn list(call: &Call) -> Answer {
    let view = View::of(&SCHEMA, &call.query, &[])?;
    let condition = Condition::of(call, &["name"])?;
    let store = call.world.state::<CalendarStore>(call.user);
    let group = group(call, &store)?;
    let of_group = |calendar: &&Object<Calendar>| {
        group.is_none_or(|group| group == calendar.place)
            && Condition::accepts_text(condition.as_ref(), "name", &calendar.value.name)
    };
    let calendars: Vec<&Object<Calendar>> = store.calendars.iter().filter(of_group).collect();
    page::list(call, "calendars", &calendars, |calendar| shown(call, &store, calendar, &view))
}

fn one(call: &Call, store: &CalendarStore, key: u64, status: u16) -> Answer {
    let calendar = store.calendars.get(key).ok_or(Missing::Gone)?;
    page::one(status, &shown(call, store, calendar, &View::default()))
}

pub(crate) fn get(call: &Call) -> Answer {
    let store = call.world.state::<CalendarStore>(call.user);
    one(call, &store, named(call, &store)?, 200)
}

fn required<'a>(fields: &'a serde_json::Map<String, Value>, name: &str) -> Result<&'a str, Refusal> {
    let text = fields.get(name).and_then(Value::as_str).map(str::trim).filter(|text| !text.is_empty());
    text.ok_or_else(|| refuse(400, "ErrorInvalidArgument", format!("{name} is missing")))
}

/// Two calendars may have one name.
pub(crate) fn create(call: &Call) -> Answer {
    let mut fields = SCHEMA.blank();
    SCHEMA.apply(&mut fields, object(&call.json()?)?)?;
    let name = required(&fields, "name")?;
    let mut store = call.world.state::<CalendarStore>(call.user);
    let group = group(call, &store)?.unwrap_or(store.default_group);
    let key = store.add_calendar(group, name, call.world.clock.now_ms());
    if let Some(calendar) = store.calendars.quietly(key) {
        calendar.color = required(&fields, "color")?.to_owned();
    }
    one(call, &store, key, 201)
}

pub(crate) fn patch(call: &Call) -> Answer {
    let body = call.json()?;
    let mut store = call.world.state::<CalendarStore>(call.user);
    let key = writable(call, &store)?;
    let mut fields = SCHEMA.blank();
    if let Some(calendar) = store.calendars.get(key) {
        fields.insert("name".into(), calendar.value.name.clone().into());
        fields.insert("color".into(), calendar.value.color.clone().into());
    }
    SCHEMA.apply(&mut fields, object(&body)?)?;
    let (name, color) = (required(&fields, "name")?.to_owned(), required(&fields, "color")?.to_owned());
    let CalendarStore { numbers, calendars, .. } = &mut *store;
    if let Some(calendar) = calendars.change(numbers, key, call.world.clock.now_ms()) {
        (calendar.name, calendar.color) = (name, color);
    }
    one(call, &store, key, 200)
}

pub(crate) fn delete(call: &Call) -> Answer {
    let mut store = call.world.state::<CalendarStore>(call.user);
    let key = named(call, &store)?;
    if key == store.default_calendar {
        return Err(refuse(400, "ErrorDeleteDistinguishedFolder", "The default calendar cannot be deleted."));
    }
    store.remove_calendar(key);
    Ok(Reply::Empty(204))
}

fn group_shown(store: &CalendarStore, group: &Object<Group>) -> Value {
    let class = if group.key == store.default_group { DEFAULT_CLASS } else { OWN_CLASS };
    json!({"id": store.group_id(group.key), "name": group.value.name, "classId": class,
        "changeKey": change_key(group.seq)})
}

pub(crate) fn group_list(call: &Call) -> Answer {
    page::refuse_any(call, &["$filter", "$select", "$expand"])?;
    let store = call.world.state::<CalendarStore>(call.user);
    let groups: Vec<&Object<Group>> = store.groups.iter().collect();
    page::list(call, "calendarGroups", &groups, |group| group_shown(&store, group))
}

pub(crate) fn group_get(call: &Call) -> Answer {
    let store = call.world.state::<CalendarStore>(call.user);
    let key = group(call, &store)?.ok_or(Missing::Gone)?;
    page::one(200, &group_shown(&store, store.groups.get(key).ok_or(Missing::Gone)?))
}

pub(crate) fn group_create(call: &Call) -> Answer {
    let mut fields = GROUP_SCHEMA.blank();
    GROUP_SCHEMA.apply(&mut fields, object(&call.json()?)?)?;
    let mut store = call.world.state::<CalendarStore>(call.user);
    let key = store.add_group(required(&fields, "name")?, call.world.clock.now_ms());
    page::one(201, &group_shown(&store, store.groups.get(key).ok_or(Missing::Gone)?))
}
