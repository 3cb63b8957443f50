// Package messages tells people and other systems what has happened to their bookings: by mail, and by webhooks.
//
// It renders and sends, and remembers nothing: what is to be sent, to whom and when again belongs to package store, which calls
// this one from its jobs. So a server that is dead, slow or refuses costs jobs time and never a booking.
//
// Invariants:
//   - At least once: what may have arrived is never reported as sent before it was accepted, and whatever ends without an answer is
//     reported as failed. A receiver tells repetitions by the id, which is the same every time: the Message-ID of a mail, the
//     webhook-id of a webhook.
//   - What users write is text. It is escaped in HTML, in calendars and in headers, and never decides where a message goes.
//   - Times are those of the event's place, with the abbreviation of its zone, so that the hour that comes twice when summer time ends
//     is told apart.
//   - Secrets (codes, passwords of mail servers, signing keys) appear in no error and no log.
//
// Failures: a refusal for good ends the message (evently.ErrMailRefused). Everything else is tried again by the caller. After
// several failures in a row nothing is tried for a while (evently.ErrMailPaused), see SMTP.
package messages
