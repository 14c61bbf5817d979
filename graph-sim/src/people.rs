//! The people of the tenant and the strangers who write to them.
//!
//! Invariant: user principal names are unique and, like ids, depend only on the seed and the user's number.

use std::collections::HashMap;

use serde::{Deserialize, Serialize};

use crate::rng::{Rng, mix};
use crate::workloads::mail::content::Person;

const DOMAIN: &str = "contoso.example";
const FIRST: [&str; 40] = [
    "Alex", "Maria", "Jürgen", "Chloé", "Daniel", "Aisha", "Wei", "Sofia", "Lars", "Priya", "Tomás", "Emma",
    "Noah", "Yuki", "Olga", "Mateo", "Fatima", "Henrik", "Zoë", "Ivan", "Grace", "Pedro", "Lena", "Omar",
    "Ingrid", "Paul", "Nadia", "Felix", "Elena", "Samuel", "Hana", "Luca", "Marta", "Viktor", "Amelia",
    "Rafael", "Julia", "Kofi", "Anna", "Bruno",
];
const LAST: [&str; 50] = [
    "Müller",
    "Garcia",
    "Nguyen",
    "Rossi",
    "Schmidt",
    "Dubois",
    "Kowalski",
    "Tanaka",
    "Silva",
    "Andersen",
    "Novák",
    "Haddad",
    "Okafor",
    "Petrov",
    "Larsen",
    "Fischer",
    "Moreau",
    "Santos",
    "Costa",
    "Weber",
    "Bianchi",
    "Lindqvist",
    "Becker",
    "Ferrari",
    "Sato",
    "Patel",
    "Khan",
    "Jensen",
    "Keller",
    "Ortiz",
    "Brown",
    "Wagner",
    "Laurent",
    "Vargas",
    "Horvat",
    "Nagy",
    "Popescu",
    "Ivanova",
    "Yilmaz",
    "Cohen",
    "Murphy",
    "Walsh",
    "Hughes",
    "Clarke",
    "Baker",
    "Adams",
    "Reed",
    "Quinn",
    "Price",
    "Stone",
];
const OUTSIDE: [&str; 6] = [
    "fabrikam.example",
    "northwind.example",
    "tailspin.example",
    "litware.example",
    "adatum.example",
    "wingtip.example",
];
const DEPARTMENTS: [&str; 7] =
    ["Sales", "Finance", "Legal", "Engineering", "Operations", "People", "Marketing"];
const TITLES: [&str; 6] = ["Manager", "Specialist", "Analyst", "Director", "Assistant", "Lead"];
const OFFICES: [&str; 5] = ["Zürich", "Lyon", "Boston", "Lisboa", "Osaka"];

/// A person with a mailbox.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SimUser {
    /// Number from 0.
    pub index: u32,
    /// Object id, a GUID.
    pub id: String,
    /// Sign-in name, also the mail address.
    pub user_principal_name: String,
    /// First and last name.
    pub display_name: String,
    /// First name.
    pub given_name: String,
    /// Last name.
    pub surname: String,
    /// Job title.
    pub job_title: String,
    /// Department.
    pub department: String,
    /// Office.
    pub office_location: String,
}

impl SimUser {
    /// Name and address.
    pub(crate) fn person(&self) -> Person {
        Person { name: self.display_name.clone(), address: self.user_principal_name.clone() }
    }
}

pub(crate) struct People {
    seed: u64,
    users: Vec<SimUser>,
    index: HashMap<String, u32>,
}

impl People {
    pub(crate) fn new(seed: u64, count: u32) -> Self {
        let users: Vec<_> = (0..count).map(|index| make_user(seed, index)).collect();
        let mut index = HashMap::with_capacity(users.len() * 2);
        for user in &users {
            index.insert(user.id.clone(), user.index);
            index.insert(user.user_principal_name.clone(), user.index);
        }
        Self { seed, users, index }
    }

    pub(crate) fn users(&self) -> impl Iterator<Item = &SimUser> {
        self.users.iter()
    }

    pub(crate) fn len(&self) -> usize {
        self.users.len()
    }

    pub(crate) fn user(&self, index: u32) -> &SimUser {
        &self.users[index as usize]
    }

    /// Finds by object id or principal name, without regard to case.
    pub(crate) fn find(&self, name: &str) -> Option<u32> {
        self.index.get(&name.to_ascii_lowercase()).copied()
    }

    /// Somebody the owner of a mailbox writes with: mostly colleagues.
    pub(crate) fn someone(&self, rng: &mut Rng) -> Person {
        if rng.percent(60) && !self.users.is_empty() {
            return self.users[rng.below(self.users.len())].person();
        }
        let number = rng.below(400) as u64;
        let (first, last) = name(self.seed ^ 0x00a5_a5a5, number);
        let domain = OUTSIDE[(mix(number) % OUTSIDE.len() as u64) as usize];
        Person {
            name: format!("{first} {last}"),
            address: format!("{}.{}@{domain}", ascii(first), ascii(last)),
        }
    }
}

fn name(seed: u64, number: u64) -> (&'static str, &'static str) {
    let combinations = (FIRST.len() * LAST.len()) as u64;
    let at = (number.wrapping_mul(977).wrapping_add(seed % combinations)) % combinations;
    (FIRST[(at % FIRST.len() as u64) as usize], LAST[(at / FIRST.len() as u64) as usize])
}

fn make_user(seed: u64, index: u32) -> SimUser {
    let (first, last) = name(seed, u64::from(index));
    let round = index as usize / (FIRST.len() * LAST.len());
    let suffix = if round == 0 { String::new() } else { (round + 1).to_string() };
    let mut rng = Rng::new(&[seed, 0x7573_6572, u64::from(index)]);
    let bytes = (u128::from(rng.next()) << 64) | u128::from(rng.next());
    let id = uuid::Builder::from_random_bytes(bytes.to_be_bytes()).into_uuid().to_string();
    let department = *rng.pick(&DEPARTMENTS);
    SimUser {
        index,
        id,
        user_principal_name: format!("{}.{}{suffix}@{DOMAIN}", ascii(first), ascii(last)),
        display_name: format!("{first} {last}{suffix}"),
        given_name: first.into(),
        surname: last.into(),
        job_title: format!("{department} {}", rng.pick(&TITLES)),
        department: department.into(),
        office_location: (*rng.pick(&OFFICES)).into(),
    }
}

fn ascii(name: &str) -> String {
    name.chars()
        .map(|c| match c {
            'ü' => 'u',
            'é' | 'ë' => 'e',
            'á' => 'a',
            other => other.to_ascii_lowercase(),
        })
        .collect()
}
