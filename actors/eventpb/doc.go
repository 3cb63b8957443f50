// Package eventpb is what nodes send each other about events: Request to the owner of an event, Response back. The meaning
// of a field is that of the domain type of the same name.
//
// Nodes of two versions talk to each other during an upgrade. So that they understand each other:
//   - A node ignores a message of a type it does not have, so that the sender waits in vain (see package cluster; versions before
//     that rule close the whole connection, with all that is under way on it). Types that are sent by themselves, not inside of
//     another, are therefore deployed to all nodes before the first node sends one. Request and Response are the only ones today.
//   - Of the types that it has, a node takes only those from other processes that actors.Messages lists. A type that is sent by
//     itself must be added there, or it is ignored like an unknown one.
//   - Fields that a node does not know are ignored. A new field must be one that may be ignored; its number and type never
//     change, and numbers of removed fields are reserved.
//   - A command that the owner does not know is answered with the error "unavailable", which tells clients to come again. An
//     error code or an outcome that the caller does not know counts as unresolved. So a new command or code is deployed to
//     all nodes before the first node uses it, too.
//
// event.pb.go is made by `make generate`, with protoc 3.21 as in Debian 12 (apt-get install -y --no-install-recommends
// protobuf-compiler) and the protoc-gen-go of the version of google.golang.org/protobuf in go.mod. Another protoc
// changes no more than the comment that names it.
package eventpb

//go:generate go build -o ../../bin/protoc-gen-go google.golang.org/protobuf/cmd/protoc-gen-go
//go:generate protoc --plugin=../../bin/protoc-gen-go -I ../.. --go_out=../.. --go_opt=paths=source_relative ../../actors/eventpb/event.proto
