//! Phrase tables: what people write about, in several languages.

/// One language's phrases.
pub(crate) struct Language {
    pub greetings: &'static [&'static str],
    pub sentences: &'static [&'static str],
    pub closings: &'static [&'static str],
    pub subjects: &'static [&'static str],
    pub reply: &'static str,
    pub forward: &'static str,
    pub wrote: &'static str,
}

pub(crate) static ENGLISH: Language = Language {
    greetings: &["Hi all,", "Hello,", "Good morning,", "Dear team,", "Thanks for the quick reply."],
    sentences: &[
        "Please find the figures for the last quarter attached; the totals on the second page are final.",
        "The supplier confirmed delivery for Thursday, so the installation can start on Friday morning.",
        "I moved the review to next week because two of us are travelling and the room was not free.",
        "Could you check the numbers in column F before we send this to the customer?",
        "Legal has no objections, but they would like one sentence about liability in section four.",
        "We agreed to keep the old process until the end of the month and to switch on the first.",
        "The open points are the invoice from March, the access cards, and the second monitor for reception.",
        "If nobody objects by noon I will take that as a yes and book the flights.",
        "The test on the staging system went well except for the export, which still takes eleven minutes.",
        "As discussed, the budget stays where it is and marketing pays for the printing.",
        "I am out of the office on Monday and Tuesday; please call the desk if it is urgent.",
        "The customer asked for a second quote without the maintenance contract.",
        "Minutes are below, corrections are welcome until tomorrow evening.",
        "We still need a decision about the warehouse, otherwise the lease renews by itself.",
    ],
    closings: &["Best regards", "Kind regards", "Thanks", "Cheers"],
    subjects: &[
        "Quarterly report",
        "Minutes of the steering meeting",
        "Contract draft",
        "Invoice question",
        "Travel plans",
        "Project status",
        "Release plan",
        "Lunch on Friday",
        "Customer feedback",
        "Access to the archive",
    ],
    reply: "Re: ",
    forward: "Fw: ",
    wrote: "wrote:",
};

static GERMAN: Language = Language {
    greetings: &["Hallo zusammen,", "Guten Tag,", "Liebe Kolleginnen und Kollegen,"],
    sentences: &[
        "im Anhang findet ihr die überarbeitete Fassung, die Änderungen stehen auf Seite drei.",
        "Die Lieferung verzögert sich um eine Woche, der Kunde weiß Bescheid.",
        "Können wir das am Donnerstag kurz besprechen? Mir fehlen noch zwei Zahlen für die Übersicht.",
        "Die Rechnung über 1.250,00 € ist freigegeben und wird morgen bezahlt.",
        "Für die Schulung sind noch drei Plätze frei; bitte bis Mittwoch zurückmelden.",
        "Der Prüfer hat keine Einwände, möchte aber die Belege der größeren Posten sehen.",
    ],
    closings: &["Viele Grüße", "Mit freundlichen Grüßen", "Schöne Grüße"],
    subjects: &[
        "Angebot für die Halle",
        "Protokoll der Sitzung",
        "Rückfrage zur Rechnung",
        "Terminübersicht",
        "Prüfbericht",
    ],
    reply: "AW: ",
    forward: "WG: ",
    wrote: "schrieb:",
};

static FRENCH: Language = Language {
    greetings: &["Bonjour à tous,", "Bonjour,", "Chère équipe,"],
    sentences: &[
        "Vous trouverez ci-joint le compte rendu de la réunion d'hier, merci de le relire.",
        "Le fournisseur a confirmé la livraison, mais le délai reste à préciser.",
        "Pourriez-vous vérifier les montants avant l'envoi au client ?",
        "Nous avons décidé de reporter la visite à la semaine prochaine.",
        "Le contrat est signé ; l'original arrivera par la poste.",
    ],
    closings: &["Cordialement", "Bien à vous", "Merci d'avance"],
    subjects: &["Compte rendu", "Devis à valider", "Réunion déplacée", "Été : planning des congés"],
    reply: "RE: ",
    forward: "TR: ",
    wrote: "a écrit :",
};

static SPANISH: Language = Language {
    greetings: &["Buenos días:", "Hola a todos:"],
    sentences: &[
        "Adjunto el informe con los cambios que pidió el cliente el viernes.",
        "¿Podemos adelantar la reunión? La señal de la sala grande no funciona.",
        "El presupuesto está aprobado y mañana empezamos con la instalación.",
        "Falta la firma del director en la última página.",
    ],
    closings: &["Saludos", "Un saludo"],
    subjects: &["Informe de septiembre", "Presupuesto aprobado", "Reunión de mañana"],
    reply: "RE: ",
    forward: "RV: ",
    wrote: "escribió:",
};

static JAPANESE: Language = Language {
    greetings: &["お疲れ様です。", "いつもお世話になっております。"],
    sentences: &[
        "先日の会議の議事録を添付いたしますので、ご確認ください。",
        "納期は来週の金曜日に変更となりました。",
        "見積書の金額について、一点確認させてください。",
        "ご不明な点がございましたら、お気軽にお問い合わせください。",
    ],
    closings: &["よろしくお願いいたします", "以上、よろしくお願いします"],
    subjects: &["議事録のご確認", "納期変更のお知らせ", "見積書の件"],
    reply: "RE: ",
    forward: "FW: ",
    wrote: "さんのメール:",
};

/// The language of a thread; most of the tenant writes English.
pub(crate) fn language(number: u64) -> &'static Language {
    match number % 10 {
        0 | 1 => &GERMAN,
        2 => &FRENCH,
        3 => &SPANISH,
        4 => &JAPANESE,
        _ => &ENGLISH,
    }
}

pub(crate) const CATEGORIES: [&str; 6] =
    ["Red category", "Blue category", "Project Aurora", "Follow-up", "Persönlich", "Customers"];
pub(crate) const FOLDERS: [&str; 12] = [
    "Projects",
    "Clients",
    "Invoices",
    "Newsletters",
    "Travel",
    "Überblick",
    "Team",
    "Suppliers",
    "Archive 2024",
    "Aurora",
    "Contracts & NDAs",
    "Reports",
];
pub(crate) const FILES: [&str; 12] = [
    "Quarterly report",
    "Offer 2026-114",
    "Minutes",
    "Floor plan",
    "Price list",
    "Übersicht",
    "Contract signed",
    "Holiday calendar",
    "Slides kick-off",
    "Export",
    "Photo site visit",
    "Terms and conditions",
];
