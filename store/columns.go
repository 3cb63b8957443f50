package store

import (
	"encoding/binary"
	"time"

	"github.com/jackc/pgx/v5/pgtype"

	"github.com/evently/evently"
)

// column builds one array parameter in Postgres' binary form, without an allocation once it has grown: a one-dimensional
// array is a header of five int32 (dimensions, has nulls, element type, length, lower bound) and for each element its
// length and bytes (src/backend/utils/adt/arrayfuncs.c, array_recv).
type column struct {
	elementOID uint32
	buf        []byte
	len        int
	nulls      bool
}

const arrayHeaderBytes = 20

func (c *column) reset() {
	if c.buf == nil {
		c.buf = make([]byte, arrayHeaderBytes, 1024)
	}
	c.buf, c.len, c.nulls = c.buf[:arrayHeaderBytes], 0, false
}

// bytes returns the finished parameter. It is valid until the next reset.
func (c *column) bytes() []byte {
	header := c.buf[:arrayHeaderBytes]
	binary.BigEndian.PutUint32(header[8:], c.elementOID)
	if c.len == 0 { // an empty array has no dimension
		clear(header[:8])
		return header[:12]
	}
	binary.BigEndian.PutUint32(header[0:], 1)
	binary.BigEndian.PutUint32(header[4:], 0)
	if c.nulls {
		binary.BigEndian.PutUint32(header[4:], 1)
	}
	binary.BigEndian.PutUint32(header[12:], uint32(c.len))
	binary.BigEndian.PutUint32(header[16:], 1)
	return c.buf
}

func (c *column) null() {
	c.len++
	c.nulls = true
	c.buf = append(c.buf, 0xff, 0xff, 0xff, 0xff)
}

func (c *column) element(length int) {
	c.len++
	c.buf = binary.BigEndian.AppendUint32(c.buf, uint32(length))
}

func (c *column) bool(v bool) {
	c.element(1)
	if v {
		c.buf = append(c.buf, 1)
	} else {
		c.buf = append(c.buf, 0)
	}
}

func (c *column) int2(v int) {
	c.element(2)
	c.buf = binary.BigEndian.AppendUint16(c.buf, uint16(v))
}

func (c *column) int4(v int) {
	c.element(4)
	c.buf = binary.BigEndian.AppendUint32(c.buf, uint32(v))
}

func (c *column) int8(v uint64) {
	c.element(8)
	c.buf = binary.BigEndian.AppendUint64(c.buf, v)
}

// postgresEpoch is the zero of timestamptz.
var postgresEpoch = time.Date(2000, 1, 1, 0, 0, 0, 0, time.UTC).UnixMicro()

// time appends a timestamptz, or null for the zero time.
func (c *column) time(v time.Time) {
	if v.IsZero() {
		c.null()
		return
	}
	c.int8(uint64(v.UnixMicro() - postgresEpoch))
}

func (c *column) uuid(v [16]byte) {
	c.element(16)
	c.buf = append(c.buf, v[:]...)
}

// key appends a uuid, or null for no key.
func (c *column) key(v evently.Key) {
	if v == (evently.Key{}) {
		c.null()
		return
	}
	c.element(16)
	c.buf = binary.BigEndian.AppendUint64(c.buf, v.Hi)
	c.buf = binary.BigEndian.AppendUint64(c.buf, v.Lo)
}

func (c *column) text(v string) {
	c.element(len(v))
	c.buf = append(c.buf, v...)
}

// json appends a text that SQL casts to jsonb, or null for nil.
func (c *column) json(v []byte) {
	if v == nil {
		c.null()
		return
	}
	c.element(len(v))
	c.buf = append(c.buf, v...)
}

func columnsOf(elementOIDs ...uint32) []column {
	columns := make([]column, len(elementOIDs))
	for i, oid := range elementOIDs {
		columns[i].elementOID = oid
		columns[i].reset()
	}
	return columns
}

func reset(columns []column) {
	for i := range columns {
		columns[i].reset()
	}
}

// Short names of the element types that the appends use.
const (
	oidBool = pgtype.BoolOID
	oidInt2 = pgtype.Int2OID
	oidInt4 = pgtype.Int4OID
	oidInt8 = pgtype.Int8OID
	oidText = pgtype.TextOID
	oidTime = pgtype.TimestamptzOID
	oidUUID = pgtype.UUIDOID
)
