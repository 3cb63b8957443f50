// Package bench measures a node over HTTP as its clients see it, and audits what it was told.
//
// A figure counts only when the audit agrees: every acknowledged booking is stored, none was sold twice.
package bench
