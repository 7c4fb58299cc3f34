// The rules for the plugin and its tests. They are written out, so that this file needs no package beside it.

const globals = `AbortController AbortSignal Buffer URL WebSocket clearInterval clearTimeout console crypto globalThis process
  setInterval setTimeout`.split(/\s+/)

const errors = `constructor-super for-direction getter-return no-async-promise-executor no-class-assign no-compare-neg-zero
  no-cond-assign no-const-assign no-constant-binary-expression no-constant-condition no-control-regex no-debugger
  no-dupe-args no-dupe-class-members no-dupe-else-if no-dupe-keys no-duplicate-case no-empty no-empty-pattern no-ex-assign
  no-fallthrough no-func-assign no-import-assign no-inner-declarations no-invalid-regexp no-loss-of-precision
  no-misleading-character-class no-new-native-nonconstructor no-obj-calls no-promise-executor-return no-prototype-builtins
  no-redeclare no-self-assign no-self-compare no-setter-return no-shadow no-sparse-arrays no-this-before-super
  no-throw-literal no-undef no-unexpected-multiline no-unmodified-loop-condition no-unreachable no-unsafe-finally
  no-unsafe-negation no-unsafe-optional-chaining no-unused-private-class-members no-unused-vars no-use-before-define
  no-useless-backreference no-useless-catch no-useless-escape no-var no-with prefer-const require-yield use-isnan
  valid-typeof`.split(/\s+/)

const rules = Object.fromEntries(errors.map((name) => [name, "error"]))

export default [
  { linterOptions: { reportUnusedDisableDirectives: "error" } },
  {
    files: ["**/*.js"],
    languageOptions: { ecmaVersion: 2024, sourceType: "module", globals: Object.fromEntries(globals.map((name) => [name, "readonly"])) },
    rules: {
      ...rules,
      eqeqeq: "error",
      "max-len": ["error", { code: 150, ignoreTemplateLiterals: true, ignoreStrings: true }],
      "no-promise-executor-return": "off", // short executors are arrows
      "no-use-before-define": ["error", { functions: false, variables: false }],
    },
  },
  {
    files: ["greenroom.js"],
    rules: {
      "max-lines": ["error", 500],
      // It runs inside opencode: it says nothing there, and brings nothing in.
      "no-console": "error",
      "no-restricted-syntax": ["error", "ImportDeclaration", "ImportExpression"],
      "no-restricted-globals": ["error", "require"],
    },
  },
]
