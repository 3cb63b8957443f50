package http

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/getkin/kin-openapi/openapi3"

	"github.com/evently/evently"
)

func loadOpenAPI(t *testing.T, document []byte) *openapi3.T {
	t.Helper()
	doc, err := openapi3.NewLoader().LoadFromData(document)
	if err != nil {
		t.Fatal(err)
	}
	return doc
}

// validateOpenAPI checks the document against OpenAPI 3.1, and every example and default in it against its schema.
func validateOpenAPI(doc *openapi3.T) error {
	err := doc.Validate(context.Background(), openapi3.EnableSchemaFormatValidation(), openapi3.EnableExamplesValidation(),
		openapi3.EnableSchemaDefaultsValidation(), openapi3.EnableMultiError())
	// Validate passes over the examples of headers.
	for name, header := range doc.Components.Headers {
		if wrong := header.Value.Schema.Value.VisitJSON(header.Value.Example, openapi3.EnableJSONSchema2020()); wrong != nil {
			err = errors.Join(err, fmt.Errorf("header %s: %w", name, wrong))
		}
	}
	return err
}

func TestOpenAPI_IsValid(t *testing.T) {
	doc := loadOpenAPI(t, openapiDocument)
	if !strings.HasPrefix(doc.OpenAPI, "3.1.") {
		t.Errorf("version is %q, want 3.1", doc.OpenAPI)
	}
	if err := validateOpenAPI(doc); err != nil {
		t.Error(err)
	}
}

// The check above is only as good as its validator: each of these faults must be found. A few paths stand for all, which
// saves most of the time.
func TestOpenAPI_FaultsAreFound(t *testing.T) {
	var document map[string]any
	if err := json.Unmarshal(openapiDocument, &document); err != nil {
		t.Fatal(err)
	}
	maps.DeleteFunc(document["paths"].(map[string]any), func(path string, _ any) bool {
		return !slices.Contains([]string{"/register", "/login", "/admin/events/{id}"}, path)
	})
	text, err := json.Marshal(document)
	if err != nil {
		t.Fatal(err)
	}
	if err := validateOpenAPI(loadOpenAPI(t, text)); err != nil {
		t.Fatal(err)
	}
	for name, change := range map[string][2]string{
		"example of a response":  {`"expires_in":900`, `"expires_in":"900"`},
		"surplus in an example":  {`"token_type":"Bearer"`, `"token_type":"Bearer","colour":"red"`},
		"example of a parameter": {`"example":["held","confirmed"]`, `"example":["held","lost"]`},
		"example of a problem":   {`"code":"version_stale"`, `"code":"sold_out"`},
		"example of a request":   {`"max_per_booking":10`, `"max_per_booking":0`},
		"example of a header":    {`"example":"Bearer realm=\"evently\""`, `"example":7`},
		"operation id twice":     {`"operationId":"login"`, `"operationId":"register"`},
		"type that is none":      {`"type":["string","null"]`, `"type":["string","nil"]`},
	} {
		t.Run(name, func(t *testing.T) {
			broken := strings.ReplaceAll(string(text), change[0], change[1])
			if broken == string(text) {
				t.Fatalf("the document has no %s", change[0])
			}
			if validateOpenAPI(loadOpenAPI(t, []byte(broken))) == nil {
				t.Errorf("%s instead of %s is not found", change[1], change[0])
			}
		})
	}
}

var (
	pathParameter = regexp.MustCompile(`:(\w+)`)    // as the router has it
	pathTemplate  = regexp.MustCompile(`\{(\w+)\}`) // as the document has it
)

func TestOpenAPI_HasTheRoutes(t *testing.T) {
	doc := loadOpenAPI(t, openapiDocument)
	described := map[string]bool{}
	for path, item := range doc.Paths.Map() {
		for method := range item.Operations() {
			described[method+" "+path] = true
		}
	}
	for _, route := range newSite(t, nil).server.routes() {
		path := pathParameter.ReplaceAllString(route.path, "{$1}")
		name := route.method + " " + path
		if !described[name] {
			t.Errorf("%s is a route and not in the document", name)
			continue
		}
		delete(described, name)
		t.Run(name, func(t *testing.T) {
			checkRoute(t, route, &operation{doc.Paths.Value(path).GetOperation(route.method), doc, route.method, path})
		})
	}
	for name := range described {
		t.Errorf("%s is in the document and no route", name)
	}
}

// checkRoute checks what the route table says of a route against the description of its operation.
func checkRoute(t *testing.T, route route, o *operation) {
	t.Helper()
	if got, want := o.needsToken(), route.access != public; got != want {
		t.Errorf("needs an access token: %v, want %v", got, want)
	}
	for status, want := range map[int]bool{
		401: route.access != public || o.OperationID == "login" || o.OperationID == "refreshTokens",
		403: refusesSome(route.access) || route.verified,
		413: route.noBody || o.RequestBody != nil,
		415: route.noBody || o.RequestBody != nil,
		422: route.key != keyNone,
		429: true,
		500: true,
		503: !route.always || slices.Contains([]string{"/health", "/readyz"}, route.path),
	} {
		if got := o.Responses.Status(status) != nil; got != want {
			t.Errorf("has a response %d: %v, want %v", status, got, want)
		}
	}
	var required, optional bool
	if key := o.Parameters.GetByInAndName(openapi3.ParameterInHeader, "Idempotency-Key"); key != nil {
		required, optional = key.Required, !key.Required
	}
	if required != (route.key == keyBook) || optional != (route.key == keyOptional) {
		t.Errorf("Idempotency-Key is required: %v, optional: %v; want %v, %v", required, optional, route.key == keyBook, route.key == keyOptional)
	}
	if route.noBody && o.RequestBody != nil && o.RequestBody.Ref != "#/components/requestBodies/Nothing" {
		t.Errorf("body is described, and the route takes none")
	}
}

// operation is one that the document describes.
type operation struct {
	*openapi3.Operation
	doc          *openapi3.T
	method, path string
}

// operations calls check in a subtest for each operation.
func operations(t *testing.T, check func(t *testing.T, o *operation)) {
	t.Helper()
	doc := loadOpenAPI(t, openapiDocument)
	for path, item := range doc.Paths.Map() {
		for method, described := range item.Operations() {
			t.Run(method+" "+path, func(t *testing.T) { check(t, &operation{described, doc, method, path}) })
		}
	}
}

func (o *operation) needsToken() bool {
	if o.Security != nil {
		return len(*o.Security) > 0
	}
	return len(o.doc.Security) > 0
}

func TestOpenAPI_OperationsAreComplete(t *testing.T) {
	operations(t, func(t *testing.T, o *operation) {
		if o.OperationID == "" || o.Summary == "" || len(o.Tags) != 1 || o.doc.Tags.Get(o.Tags[0]) == nil {
			t.Errorf("operationId %q, summary %q, tags %q: want all three, and one tag of the document",
				o.OperationID, o.Summary, o.Tags)
		}
		if o.Parameters.GetByInAndName(openapi3.ParameterInHeader, "X-Request-Id") == nil {
			t.Error("parameter X-Request-Id is missing")
		}
		if o.Parameters.GetByInAndName(openapi3.ParameterInHeader, "traceparent") == nil {
			t.Error("parameter traceparent is missing")
		}
		if body := o.RequestBody; body != nil {
			checkMedia(t, "request", body.Value.Content, "application/json")
		}
		for status, response := range o.Responses.Map() {
			if id := response.Value.Headers["X-Request-Id"]; id == nil || !id.Value.Required {
				t.Errorf("%s: header X-Request-Id is missing or optional", status)
			}
			switch code, err := strconv.Atoi(status); {
			case err != nil:
				t.Errorf("%s: is no status", status)
			case code >= 400 && o.OperationID == "getHealth" && code == 503:
				checkMedia(t, status, response.Value.Content, "application/json")
			case code >= 400:
				checkMedia(t, status, response.Value.Content, "application/problem+json")
			case code == 204 || code == 304:
				if len(response.Value.Content) > 0 {
					t.Errorf("%s: has content", status)
				}
			case o.OperationID == "getOpenAPI": // its example is itself
			case o.OperationID == "exportEventBookings":
				checkMedia(t, status, response.Value.Content, "text/csv; charset=utf-8")
			case o.OperationID == "streamAvailability":
				checkMedia(t, status, response.Value.Content, "text/event-stream")
			case o.OperationID != "getDocs" && o.OperationID != "getDocsFile":
				checkMedia(t, status, response.Value.Content, "application/json")
			}
		}
	})
}

func checkMedia(t *testing.T, where string, content openapi3.Content, want string) {
	t.Helper()
	media := content[want]
	if media == nil || len(content) != 1 {
		t.Errorf("%s: media types %q, want %s", where, slices.Collect(maps.Keys(content)), want)
		return
	}
	if media.Schema == nil || (media.Example == nil && len(media.Examples) == 0) {
		t.Errorf("%s: has no schema or no example", where)
	}
}

// A field that is not described is a mistake wherever it stands.
func TestOpenAPI_ObjectsAreClosed(t *testing.T) {
	doc := loadOpenAPI(t, openapiDocument)
	for name, schema := range doc.Components.Schemas {
		if schema.Value.Type.Is("object") {
			if open := schema.Value.AdditionalProperties; open.Has == nil || *open.Has {
				t.Errorf("%s allows additional properties", name)
			}
		}
	}
	operations(t, func(t *testing.T, o *operation) {
		if body := o.RequestBody; body != nil {
			schema := body.Value.Content["application/json"].Schema.Value
			if open := schema.AdditionalProperties; open.Has == nil || *open.Has {
				t.Error("the request's body allows additional properties")
			}
		}
	})
}

func TestOpenAPI_CodesAreThoseOfTheTable(t *testing.T) {
	described := map[evently.Code]bool{
		codeMethodNotAllowed: true, // of methods that are not described
	}
	operations(t, func(t *testing.T, o *operation) {
		for status, response := range o.Responses.Map() {
			media := response.Value.Content["application/problem+json"]
			if media == nil {
				continue
			}
			codes := codesOf(t, media)
			if len(codes) == 0 {
				t.Errorf("%s: names no codes", status)
			}
			for _, code := range codes {
				described[code] = true
				if kind, known := problemKinds[code]; !known || strconv.Itoa(kind.status) != status {
					t.Errorf("%s: code %s is of status %d", status, code, kind.status)
				}
			}
			checkProblemExamples(t, media, codes)
			if _, retry := response.Value.Headers["Retry-After"]; retry != (status == "429" || status == "503") {
				t.Errorf("%s: has the header Retry-After: %v", status, retry)
			}
			if _, challenge := response.Value.Headers["WWW-Authenticate"]; challenge != (status == "401") {
				t.Errorf("%s: has the header WWW-Authenticate: %v", status, challenge)
			}
		}
	})
	for code := range problemKinds {
		if !described[code] {
			t.Errorf("code %s is in no response", code)
		}
	}
}

// codesOf returns the codes that a response may have: what narrows Problem down names them.
func codesOf(t *testing.T, media *openapi3.MediaType) (codes []evently.Code) {
	t.Helper()
	schema := media.Schema.Value
	if len(schema.AllOf) != 2 || schema.AllOf[0].Ref != "#/components/schemas/Problem" {
		t.Fatal("the schema is not Problem and what narrows it down")
	}
	for _, code := range schema.AllOf[1].Value.Properties["code"].Value.Enum {
		codes = append(codes, evently.Code(code.(string)))
	}
	return codes
}

// checkProblemExamples checks that there is one example for each code, as the server would write it.
func checkProblemExamples(t *testing.T, media *openapi3.MediaType, codes []evently.Code) {
	t.Helper()
	examples := []any{media.Example}
	if media.Example == nil {
		examples = nil
		for _, example := range media.Examples {
			examples = append(examples, example.Value.Value)
		}
	}
	if len(examples) != len(codes) {
		t.Errorf("%d examples for the codes %q", len(examples), codes)
	}
	for _, example := range examples {
		text, err := json.Marshal(example)
		if err != nil {
			t.Fatal(err)
		}
		var got problem
		if err := json.Unmarshal(text, &got); err != nil {
			t.Fatal(err)
		}
		kind := problemKinds[got.Code]
		if got.Type != problemType(got.Code) || got.Title != kind.title || got.Status != kind.status {
			t.Errorf("example %s: want type %s, title %q, status %d", text, problemType(got.Code), kind.title, kind.status)
		}
	}
}

func TestOpenAPI_IsServed(t *testing.T) {
	w := newSite(t, nil)
	first := w.do(t, http.MethodGet, "/openapi.json", "")
	if first.status != http.StatusOK || string(first.body) != string(openapiDocument) {
		t.Fatalf("status %d and %d bytes, want 200 and the %d of the document", first.status, len(first.body), len(openapiDocument))
	}
	if got := first.header.Get("Content-Type"); got != "application/json" {
		t.Errorf("Content-Type is %q", got)
	}
	if got := first.header.Get("Cache-Control"); !strings.Contains(got, "max-age=") || strings.Contains(got, "no-store") {
		t.Errorf("Cache-Control is %q, want it cacheable", got)
	}
	tag := first.header.Get("ETag")
	for name, test := range map[string]struct {
		method, tag string
		status      int
	}{
		"the same tag":     {http.MethodGet, tag, http.StatusNotModified},
		"among others":     {http.MethodGet, `"x", W/` + tag, http.StatusNotModified},
		"another tag":      {http.MethodGet, `"x"`, http.StatusOK},
		"head":             {http.MethodHead, `"x"`, http.StatusOK},
		"head of the same": {http.MethodHead, tag, http.StatusNotModified},
	} {
		t.Run(name, func(t *testing.T) {
			got := w.do(t, test.method, "/openapi.json", "", "If-None-Match", test.tag)
			if full := test.status == http.StatusOK && test.method == http.MethodGet; got.status != test.status ||
				got.header.Get("ETag") != tag || (len(got.body) > 0) != full {
				t.Errorf("status %d, ETag %s, %d bytes; want %d, %s", got.status, got.header.Get("ETag"), len(got.body), test.status, tag)
			}
		})
	}
}
