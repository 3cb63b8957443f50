package http

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"log/slog"
	"time"

	"github.com/evently/evently"
)

// Nodes tell each other the bookings that they allow, so that Config.BookLimit is one limit wherever a user asks. Each node
// decides by itself, at once, from what it allowed and what it heard of; what it hears of late is owed (limiter.hear). So the
// limit errs for a moment, by what Config.BookLimit says, and not in the long run. What is lost on the way between nodes, and what
// a node that has started since was told before, is not owed: without any word from others the limit is of each node.
const (
	// sharePeriod is how often a node tells what it allowed, if anything.
	sharePeriod = 100 * time.Millisecond
	// shareDelayMax is how late others may hear of it, beyond which a burst at all nodes is not owed in full.
	shareDelayMax = time.Second
	// shareUsersMax bounds the users in a message, which so has 768 KiB at the most. The others are told of in the next one.
	shareUsersMax = 1 << 16
	// shareNodesMax bounds the nodes that what a user owes is reckoned for.
	shareNodesMax = 1000
)

// A message is a byte for the version of its form, the CRC-32C of what follows, and for each user the id and the number of
// requests, big-endian. Nodes ignore the versions that they do not know, so a new one may come with any release.
const (
	shareVersion    = 1
	shareHeadBytes  = 1 + 4
	shareEntryBytes = 8 + 4
)

var (
	errShareVersion = errors.New("version of a later release")
	errShareGarbled = errors.New("garbled")

	shareSum = crc32.MakeTable(crc32.Castagnoli)
)

// startSharing has other nodes told what this one allows until stop is called, which tells them the rest.
func (s *Server) startSharing() (stop func()) {
	if s.config.Share == nil || s.bookLimiter == nil {
		return func() {}
	}
	ended, done := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		ticker := time.NewTicker(sharePeriod)
		defer ticker.Stop()
		for {
			select {
			case <-ticker.C:
				s.share()
			case <-ended:
				s.share()
				return
			}
		}
	}()
	return func() {
		close(ended)
		<-done
	}
}

func (s *Server) share() {
	if allowed := s.bookLimiter.tell(shareUsersMax); len(allowed) > 0 {
		s.config.Share(newShare(allowed))
		s.metrics.shares.WithLabelValues("told").Inc()
	}
}

// TakenElsewhere counts the bookings that another node allowed, as told by its Config.Share, against their users' limit. It
// ignores a body that it does not understand, and counts it. A user never comes to owe more than all members of the cluster can
// have allowed at once, which is a limit at each. So however wrong a message is, its users may book again after a window of
// Config.BookLimit and a second for each member. TakenElsewhere is safe for concurrent use and keeps nothing of body.
func (s *Server) TakenElsewhere(from string, body []byte) {
	if s.bookLimiter == nil {
		return
	}
	allowed, err := parseShare(body)
	if err != nil {
		result := "garbled"
		if errors.Is(err, errShareVersion) {
			result = "later_version"
		}
		s.metrics.shares.WithLabelValues(result).Inc()
		s.config.Logger.Debug("bookings allowed elsewhere are not counted", slog.String("from", from), slog.Any("error", err))
		return
	}
	s.metrics.shares.WithLabelValues("heard").Inc()
	now, owedMax := s.config.Now(), s.owedMax()
	for _, entry := range allowed {
		s.bookLimiter.hear(entry, now, owedMax)
	}
}

// owedMax is how far ahead of now a bucket may be full that all nodes took from at once, before they heard of each other.
func (s *Server) owedMax() time.Duration {
	nodes := 2 // this one and who tells, whatever this one knows of others by now
	if s.config.Membership != nil {
		nodes = min(max(nodes, s.config.Membership().Members), shareNodesMax)
	}
	return time.Duration(nodes) * (s.bookLimiter.window + shareDelayMax)
}

// newShare makes the message that tells of requests.
func newShare(allowed []allowance[evently.UserID]) []byte {
	body := make([]byte, shareHeadBytes, shareHeadBytes+len(allowed)*shareEntryBytes)
	for _, entry := range allowed {
		body = binary.BigEndian.AppendUint64(body, uint64(entry.key))
		body = binary.BigEndian.AppendUint32(body, entry.count)
	}
	body[0] = shareVersion
	binary.BigEndian.PutUint32(body[1:], crc32.Checksum(body[shareHeadBytes:], shareSum))
	return body
}

// parseShare is the inverse of newShare. It returns errShareVersion or errShareGarbled, wrapped.
func parseShare(body []byte) ([]allowance[evently.UserID], error) {
	if len(body) > 0 && body[0] > shareVersion {
		return nil, fmt.Errorf("%w: %d", errShareVersion, body[0])
	}
	entries := len(body) - shareHeadBytes
	if entries <= 0 || entries%shareEntryBytes != 0 || entries/shareEntryBytes > shareUsersMax || body[0] != shareVersion {
		return nil, fmt.Errorf("%w: %d bytes", errShareGarbled, len(body))
	}
	if crc32.Checksum(body[shareHeadBytes:], shareSum) != binary.BigEndian.Uint32(body[1:]) {
		return nil, fmt.Errorf("%w: checksum of %d bytes", errShareGarbled, len(body))
	}
	allowed := make([]allowance[evently.UserID], 0, entries/shareEntryBytes)
	for rest := body[shareHeadBytes:]; len(rest) > 0; rest = rest[shareEntryBytes:] {
		entry := allowance[evently.UserID]{evently.UserID(binary.BigEndian.Uint64(rest)), binary.BigEndian.Uint32(rest[8:])}
		if entry.key == 0 || entry.count == 0 {
			return nil, fmt.Errorf("%w: no user or no request", errShareGarbled)
		}
		allowed = append(allowed, entry)
	}
	return allowed, nil
}
