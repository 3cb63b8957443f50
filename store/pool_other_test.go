//go:build !linux

package store

import (
	"net"
	"testing"
)

func checkUserTimeout(*testing.T, *net.TCPConn) {}
