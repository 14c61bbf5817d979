use super::*;

fn body(code: &str) -> Vec<u8> {
    format!(r#"{{"error":{{"code":"{code}","message":"m"}}}}"#).into_bytes()
}

fn class(status: u16, body: &[u8], operation: Operation) -> ErrorClass {
    classify(status, body, operation, None, None).class
}

#[test]
fn the_deepest_known_code_wins_without_regard_to_case() {
    let nested = br#"{"error":{"code":"BadRequest","innererror":{"code":"syncSTATENotFound","innerError":{"code":"madeUp"}}}}"#;
    let error = classify(400, nested, Operation::List, None, None);
    assert_eq!((error.code.as_str(), error.class), ("syncSTATENotFound", ErrorClass::Resync));
}

#[test]
fn empty_html_and_text_bodies_fall_back_to_the_status() {
    for body in [&b""[..], b"<html>gateway</html>", b"busy", br#"{"error":{"code":""}}"#] {
        assert_eq!(class(502, body, Operation::Item), ErrorClass::Retry);
        assert_eq!(class(404, body, Operation::Item), ErrorClass::Gone);
        assert_eq!(class(410, body, Operation::List), ErrorClass::Resync);
    }
}

#[test]
fn every_row_of_the_table_has_its_class() {
    let rows: &[(u16, &str, Operation, ErrorClass)] = &[
        (500, "", Operation::Item, ErrorClass::Retry),
        (500, "ErrorCorruptData", Operation::Item, ErrorClass::SkipItem),
        (429, "TooManyRequests", Operation::List, ErrorClass::Wait),
        (429, "itemNotFound", Operation::List, ErrorClass::Wait),
        (509, "", Operation::List, ErrorClass::Wait),
        (401, "InvalidAuthenticationToken", Operation::List, ErrorClass::ReAuth),
        (401, "generalException", Operation::List, ErrorClass::ReAuth),
        (410, "resyncRequired", Operation::List, ErrorClass::Resync),
        (404, "ErrorSyncFolderNotFound", Operation::List, ErrorClass::Resync),
        (412, "", Operation::Write, ErrorClass::Reread),
        (409, "ErrorFolderExists", Operation::Write, ErrorClass::Reread),
        (416, "fragmentOverlap", Operation::Write, ErrorClass::Reread),
        (404, "ErrorItemNotFound", Operation::Item, ErrorClass::Gone),
        (404, "MailboxNotEnabledForRESTAPI", Operation::List, ErrorClass::FailResource),
        (404, "ResourceNotFound", Operation::List, ErrorClass::FailResource),
        (403, "ErrorAccessDenied", Operation::List, ErrorClass::FailResource),
        (403, "Authorization_RequestDenied", Operation::List, ErrorClass::FailTenant),
        (507, "", Operation::Write, ErrorClass::FailResource),
        (402, "", Operation::List, ErrorClass::FailTenant),
        (405, "", Operation::Item, ErrorClass::SkipItem),
        (405, "", Operation::List, ErrorClass::Programming),
        (400, "invalidRequest", Operation::List, ErrorClass::Programming),
        (400, "invalidRequest", Operation::Item, ErrorClass::SkipItem),
        (423, "resourceLocked", Operation::Item, ErrorClass::SkipItem),
        (423, "resourceLocked", Operation::List, ErrorClass::FailResource),
        (501, "NotImplemented", Operation::List, ErrorClass::Programming),
        (403, "accessDenied", Operation::List, ErrorClass::FailResource),
        (403, "accessDenied", Operation::Item, ErrorClass::FailResource),
        (403, "accessDenied", Operation::Content, ErrorClass::SkipItem),
        (403, "", Operation::Content, ErrorClass::SkipItem),
        (403, "malwareDetected", Operation::Content, ErrorClass::SkipItem),
        (404, "itemNotFound", Operation::Content, ErrorClass::Gone),
        (423, "notAllowed", Operation::Content, ErrorClass::SkipItem),
        (403, "notAllowed", Operation::List, ErrorClass::FailResource),
        (410, "resyncChangesUploadDifferences", Operation::List, ErrorClass::Resync),
        (409, "nameAlreadyExists", Operation::Write, ErrorClass::Reread),
        (416, "invalidRange", Operation::Content, ErrorClass::Reread),
        (404, "uploadSessionNotFound", Operation::Write, ErrorClass::Reread),
        (400, "pathIsTooLong", Operation::Write, ErrorClass::SkipItem),
        (400, "noResolvedUsers", Operation::Write, ErrorClass::SkipItem),
        (403, "sharingDisabled", Operation::Write, ErrorClass::SkipItem),
        (507, "quotaLimitReached", Operation::Write, ErrorClass::FailResource),
        (509, "activityLimitReached", Operation::Content, ErrorClass::Wait),
    ];
    for (status, code, operation, expected) in rows {
        assert_eq!(class(*status, &body(code), *operation), *expected, "{status} {code} {operation:?}");
    }
}

#[test]
fn texts_decide_where_the_code_says_nothing() {
    let rows = [
        (404, "User's mysite not found.", ErrorClass::FailResource),
        (404, "Unable to retrieve user's mysite URL.", ErrorClass::FailResource),
        (403, "Tenant does not have a SPO license.", ErrorClass::FailResource),
        (403, "The service principal ... subscription within the tenant has lapsed", ErrorClass::FailTenant),
        (400, "One or more users could not be resolved.", ErrorClass::SkipItem),
    ];
    for (status, message, expected) in rows {
        let body = format!(r#"{{"error":{{"code":"odd","message":"{message}"}}}}"#);
        assert_eq!(class(status, body.as_bytes(), Operation::Write), expected, "{message}");
    }
}

#[test]
fn a_503_is_a_wait_only_when_it_says_how_long() {
    assert_eq!(class(503, b"", Operation::List), ErrorClass::Retry);
    let told =
        classify(503, &body("serviceNotAvailable"), Operation::List, None, Some(Duration::from_secs(3)));
    assert_eq!(told.class, ErrorClass::Wait);
}

#[test]
fn messages_are_never_part_of_the_error_text() {
    let body = br#"{"error":{"code":"x","message":"the mailbox of alex@contoso.com is odd"}}"#;
    let error = GraphError::Status(Box::new(classify(400, body, Operation::Item, None, None)));
    assert!(!format!("{error} {error:?}").contains("alex"));
}
