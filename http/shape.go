package http

import (
	"encoding/json"
	"fmt"
	"reflect"
	"strconv"
	"strings"
	"sync"
	"time"
)

// form is what a JSON value looks like.
type form uint8

const (
	formObject form = 1 << iota
	formList
	formText
	formNumber
	formBool
	formNull
	formAny = 1<<iota - 1
)

// formOf tells the form by the first byte of a value; 0: none begins so.
func formOf(first byte) form {
	switch first {
	case '{':
		return formObject
	case '[':
		return formList
	case '"':
		return formText
	case 't', 'f':
		return formBool
	case 'n':
		return formNull
	case '-', '0', '1', '2', '3', '4', '5', '6', '7', '8', '9':
		return formNumber
	}
	return 0
}

// shape is what a Go type takes of JSON.
type shape struct {
	forms   form
	demand  string                // what to say of a value that does not fit
	holds   func(raw []byte) bool // nil: any value of these forms fits
	fields  map[string]shapeField // of a struct
	element *shape                // of a list or a map
}

type shapeField struct {
	name  string
	index int // counts the fields of the struct, below shapeFieldsMax
	shape *shape
}

// shapeFieldsMax is the number of bits in the set of the fields seen.
const shapeFieldsMax = 64

var shapeAny = func() *shape {
	s := &shape{forms: formAny}
	s.element = s
	return s
}()

// field finds the field of a key as it stands in the text.
func (s *shape) field(raw []byte, escaped bool) (shapeField, bool) {
	if escaped {
		raw = []byte(unquote(raw, true))
	}
	field, found := s.fields[string(raw)]
	return field, found
}

var shapes sync.Map // reflect.Type -> *shape

// shapeOf returns the shape of a type. It panics on types that requests have no use for: bodies are structs of our own.
func shapeOf(t reflect.Type) *shape {
	if s, found := shapes.Load(t); found {
		return s.(*shape)
	}
	s := newShape(t)
	shapes.Store(t, s)
	return s
}

var (
	unmarshaler = reflect.TypeFor[json.Unmarshaler]()
	timeType    = reflect.TypeFor[time.Time]()
)

func newShape(t reflect.Type) *shape {
	if reflect.PointerTo(t).Implements(unmarshaler) {
		return customShape(t)
	}
	switch t.Kind() {
	case reflect.Pointer:
		s := *shapeOf(t.Elem())
		s.forms |= formNull
		return &s
	case reflect.Interface:
		return shapeAny
	case reflect.String:
		return &shape{forms: formText, demand: "must be a string"}
	case reflect.Bool:
		return &shape{forms: formBool, demand: "must be true or false"}
	case reflect.Int, reflect.Int32, reflect.Int64:
		largest := int64(1)<<(t.Bits()-1) - 1
		return &shape{
			forms: formNumber, demand: fmt.Sprintf("must be a whole number from %d to %d", -largest-1, largest),
			holds: func(raw []byte) bool { _, err := strconv.ParseInt(string(raw), 10, t.Bits()); return err == nil },
		}
	case reflect.Float64:
		return &shape{
			forms: formNumber, demand: "must be a number",
			holds: func(raw []byte) bool { _, err := strconv.ParseFloat(string(raw), 64); return err == nil },
		}
	case reflect.Slice:
		return &shape{forms: formList, demand: "must be a list", element: shapeOf(t.Elem())}
	case reflect.Map:
		return &shape{forms: formObject, demand: "must be an object", element: shapeOf(t.Elem())}
	case reflect.Struct:
		s := &shape{forms: formObject, demand: "must be an object", fields: make(map[string]shapeField)}
		s.addFields(t)
		return s
	}
	panic(fmt.Sprintf("http: a request body cannot have a %s", t))
}

// customShape is that of a type that decodes itself.
func customShape(t reflect.Type) *shape {
	s := &shape{
		forms: formAny &^ formNull, demand: "is not valid", element: shapeAny,
		holds: func(raw []byte) bool { return json.Unmarshal(raw, reflect.New(t).Interface()) == nil },
	}
	if t == timeType {
		s.forms, s.demand = formText, "must be a time such as 2027-05-01T18:00:00Z"
		s.holds = func(raw []byte) bool { _, ok := parseTime(string(raw[1 : len(raw)-1])); return ok }
	}
	return s
}

// parseTime reads a time of RFC 3339. Unlike time.Parse it takes nothing else: no comma in front of a fraction, no hour of one
// digit, no offset of a day.
func parseTime(text string) (time.Time, bool) {
	t, err := time.Parse(time.RFC3339, text)
	if err != nil || text[len("2027-05-01T18")] != ':' || strings.Contains(text, ",") {
		return t, false
	}
	offset := text[len(text)-len("24:00"):]
	return t, strings.HasSuffix(text, "Z") || offset[:2] < "24" && offset[3:] < "60"
}

// addFields adds the fields of a struct and of the structs embedded in it.
func (s *shape) addFields(t reflect.Type) {
	for i := range t.NumField() {
		field := t.Field(i)
		name, options, _ := strings.Cut(field.Tag.Get("json"), ",")
		switch {
		case field.Anonymous && name == "":
			s.addFields(field.Type)
		case name == "" || name == "-" || strings.Contains(options, "string") || !field.IsExported() || len(s.fields) == shapeFieldsMax:
			panic(fmt.Sprintf("http: %s.%s is no field of a request body", t, field.Name))
		default:
			s.fields[name] = shapeField{name, len(s.fields), shapeOf(field.Type)}
		}
	}
}
