package cluster_test

import (
	"context"
	"encoding/binary"
	"fmt"
	"net"
	"sync"
	"testing"

	"github.com/hashicorp/memberlist"
)

// accusation is memberlist's message that a member is suspected, in an incarnation of it.
func accusation(t *testing.T, name string, incarnation uint32) []byte {
	t.Helper()
	text := func(packet []byte, s string) []byte {
		packet = binary.BigEndian.AppendUint16(append(packet, 0xda), uint16(len(s))) // MessagePack: a string of 16 bits length
		return append(packet, s...)
	}
	const suspect, mapOf3, uint32Of = 3, 0x83, 0xce
	packet := text([]byte{suspect, mapOf3}, "Incarnation")
	packet = binary.BigEndian.AppendUint32(append(packet, uint32Of), incarnation)
	packet = text(text(text(text(packet, "Node"), name), "From"), "somebody")
	packet, err := memberlist.AddLabelHeaderToPacket(packet, "test")
	if err != nil {
		t.Fatal(err)
	}
	return packet
}

// A member that is suspected refutes it with what it told before, in a later incarnation.
func TestWithdraw_IsNotLostWhileTheMemberDefendsItself(t *testing.T) {
	h := start(t)
	conn, err := net.Dial("udp", h.GossipAddr())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	ctx, cancel := context.WithCancel(deadline(t))
	var accusing sync.WaitGroup
	accusing.Go(func() {
		for incarnation := uint32(1000); ctx.Err() == nil; incarnation += 1000 {
			if _, err := conn.Write(accusation(t, h.Addr()+"/"+h.ID(), incarnation)); err != nil {
				t.Errorf("accuse: %v", err)
				return
			}
		}
	})
	defer accusing.Wait()
	defer cancel()
	for round := range 250 {
		hosting := round%2 == 1
		if hosting {
			h.Resume()
		} else {
			h.Withdraw()
		}
		eventually(t, func() string {
			if _, ok := h.Owner(kindEvent, "any"); ok != hosting {
				return fmt.Sprintf("round %d: owns %v, want %v", round, ok, hosting)
			}
			return ""
		})
	}
}
