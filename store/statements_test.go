package store

import (
	"go/ast"
	"go/parser"
	"go/token"
	"maps"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/evently/evently/store/pgtest"
)

// Postgres parses and plans every statement of the package against the migrated schema. Statements are the constants
// whose names end in SQL, which TestStatements_AreNamedConstants makes sure of.
func TestStatements_CanBePrepared(t *testing.T) {
	conn, err := pgx.Connect(t.Context(), pgtest.Database(t))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close(t.Context()) })
	statements := packageStatements(t)
	if len(statements) < 30 {
		t.Errorf("found %d statements only", len(statements))
	}
	for _, name := range slices.Sorted(maps.Keys(statements)) {
		if _, err := conn.Prepare(t.Context(), name, statements[name]); err != nil {
			t.Errorf("%s: %v\n%s", name, err, statements[name])
		}
	}
}

// packageStatements evaluates the string constants of the package whose names end in SQL.
func packageStatements(t *testing.T) map[string]string {
	t.Helper()
	constants := make(map[string]ast.Expr)
	for _, file := range packageFiles(t) {
		for _, decl := range file.Decls {
			general, ok := decl.(*ast.GenDecl)
			if !ok || general.Tok != token.CONST {
				continue
			}
			for _, spec := range general.Specs {
				value := spec.(*ast.ValueSpec)
				for i, expr := range value.Values {
					constants[value.Names[i].Name] = expr
				}
			}
		}
	}
	statements := make(map[string]string)
	for name, expr := range constants {
		if strings.HasSuffix(name, "SQL") {
			statements[name] = evaluate(t, constants, expr)
		}
	}
	return statements
}

func evaluate(t *testing.T, constants map[string]ast.Expr, expr ast.Expr) string {
	t.Helper()
	switch expr := expr.(type) {
	case *ast.BasicLit:
		text, err := strconv.Unquote(expr.Value)
		if err != nil {
			t.Fatalf("%s: %v", expr.Value, err)
		}
		return text
	case *ast.BinaryExpr:
		return evaluate(t, constants, expr.X) + evaluate(t, constants, expr.Y)
	case *ast.Ident:
		if value, found := constants[expr.Name]; found {
			return evaluate(t, constants, value)
		}
		t.Fatalf("no constant %s in this package", expr.Name)
	}
	t.Fatalf("an SQL constant has a %T, not literals and names", expr)
	return ""
}

func TestStatements_AreNamedConstants(t *testing.T) {
	for name, file := range packageFiles(t) {
		ast.Inspect(file, func(node ast.Node) bool {
			call, ok := node.(*ast.CallExpr)
			if !ok {
				return true
			}
			method, ok := call.Fun.(*ast.SelectorExpr)
			if !ok || !slices.Contains([]string{"Exec", "Query", "QueryRow", "Queue", "Prepare"}, method.Sel.Name) {
				return true
			}
			for _, argument := range call.Args {
				if literal, ok := argument.(*ast.BasicLit); ok && literal.Kind == token.STRING {
					t.Errorf("%s: %s of the literal %s: name it with the suffix SQL", name, method.Sel.Name, literal.Value)
				}
			}
			return true
		})
	}
}

func packageFiles(t *testing.T) map[string]*ast.File {
	t.Helper()
	names, err := filepath.Glob("*.go")
	if err != nil {
		t.Fatal(err)
	}
	files := make(map[string]*ast.File)
	for _, name := range names {
		if strings.HasSuffix(name, "_test.go") {
			continue
		}
		file, err := parser.ParseFile(token.NewFileSet(), name, nil, parser.SkipObjectResolution)
		if err != nil {
			t.Fatal(err)
		}
		files[name] = file
	}
	return files
}
