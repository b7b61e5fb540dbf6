//! The binary as its users meet it: a process with flags, sockets, signals and children.
//!
//! One test program for all doors, a file per subject. Everything here drives the real `iotcpd` through [`harness`];
//! decisions that need no process are tested beside their code and in `tests/sim`.
//!
//! Each module is under `#[cfg(test)]` because clippy lets only such code unwrap.

#[cfg(test)]
mod ask;
#[cfg(test)]
mod ask_multiplex;
#[cfg(test)]
mod call;
#[cfg(test)]
mod chaos;
#[cfg(test)]
mod child_environment;
#[cfg(test)]
mod client_environment;
#[cfg(test)]
mod client_names;
#[cfg(test)]
mod client_streams;
#[cfg(test)]
mod command;
#[cfg(test)]
mod command_line;
#[cfg(test)]
mod command_regressions;
#[cfg(test)]
mod command_standstill;
#[cfg(test)]
mod command_torc_cfg;
#[cfg(test)]
mod config;
#[cfg(test)]
mod config_files;
#[cfg(test)]
mod control_groups;
#[cfg(test)]
mod descendants;
#[cfg(test)]
mod dist;
#[cfg(test)]
mod dump;
#[cfg(test)]
mod error_messages;
#[cfg(test)]
mod exec;
#[cfg(test)]
mod exec_client;
#[cfg(test)]
mod exec_foreign_clients;
#[cfg(test)]
mod exec_many_programs;
#[cfg(test)]
mod exec_permits;
#[cfg(test)]
mod exec_signals;
#[cfg(test)]
mod exec_sockproc;
#[cfg(test)]
mod exec_standstill;
#[cfg(test)]
mod exec_under_supervisors;
#[cfg(test)]
mod guard;
#[cfg(test)]
mod harness;
#[cfg(test)]
mod harness_daemon;
#[cfg(test)]
mod harness_worker;
#[cfg(test)]
mod house;
#[cfg(test)]
mod listen;
#[cfg(test)]
mod logging;
#[cfg(test)]
mod manual;
#[cfg(test)]
mod origin;
#[cfg(test)]
mod pipe_budget;
#[cfg(test)]
mod pool_cache;
#[cfg(test)]
mod pool_client_hangups;
#[cfg(test)]
mod pool_clients_by_dice;
#[cfg(test)]
mod pool_concurrency;
#[cfg(test)]
mod pool_confidential;
#[cfg(test)]
mod pool_elastic;
#[cfg(test)]
mod pool_failure_log;
#[cfg(test)]
mod pool_faults_of_1_1;
#[cfg(test)]
mod pool_faulty_workers;
#[cfg(test)]
mod pool_framings;
#[cfg(test)]
mod pool_many_clients;
#[cfg(test)]
mod pool_multiplex;
#[cfg(test)]
mod pool_multiplex_random;
#[cfg(test)]
mod pool_out_of_step;
#[cfg(test)]
mod pool_persistent;
#[cfg(test)]
mod pool_persistent_random;
#[cfg(test)]
mod pool_pipeline;
#[cfg(test)]
mod pool_probe;
#[cfg(test)]
mod pool_queue;
#[cfg(test)]
mod pool_recorder;
#[cfg(test)]
mod pool_replies;
#[cfg(test)]
mod pool_sandbox;
#[cfg(test)]
mod pool_session;
#[cfg(test)]
mod pool_shutdown;
#[cfg(test)]
mod pool_supervision;
#[cfg(test)]
mod pool_system_calls;
#[cfg(test)]
mod pool_worker_deaths;
#[cfg(test)]
mod pool_worker_selection;
#[cfg(test)]
mod proxy_protocol;
#[cfg(test)]
mod quickstart;
#[cfg(test)]
#[path = "../sim/random.rs"]
mod random;
#[cfg(test)]
mod readiness;
mod real_helpers;
#[cfg(test)]
mod real_proxies;
#[cfg(test)]
mod real_runtimes;
#[cfg(test)]
mod real_squid;
#[cfg(test)]
mod real_squid_faults;
#[cfg(test)]
mod real_squidguard;
#[cfg(test)]
mod real_tls;
#[cfg(test)]
mod route;
#[cfg(test)]
mod route_access_log;
#[cfg(test)]
mod route_attacks;
#[cfg(test)]
mod route_checks;
#[cfg(test)]
mod route_doors;
#[cfg(test)]
mod route_http;
#[cfg(test)]
mod route_names;
#[cfg(test)]
mod route_peers;
#[cfg(test)]
mod route_postgresql;
#[cfg(test)]
mod route_postgresql_real;
#[cfg(test)]
mod route_proxy;
#[cfg(test)]
mod route_real;
#[cfg(test)]
mod route_requests;
#[cfg(test)]
mod route_router_toml;
#[cfg(test)]
mod route_start;
#[cfg(test)]
mod route_store;
#[cfg(test)]
mod route_store_redis;
#[cfg(test)]
mod route_system_calls;
#[cfg(test)]
mod route_tls;
#[cfg(test)]
mod route_tunnel;
#[cfg(test)]
mod route_tunnel_kinds;
#[cfg(test)]
mod route_tunnel_real;
#[cfg(test)]
mod route_tunnel_upgrade;
#[cfg(test)]
mod self_connection;
#[cfg(test)]
mod session_standstill;
#[cfg(test)]
mod signals;
#[cfg(test)]
mod startup;
#[cfg(test)]
mod suspended_processes;
#[cfg(test)]
mod tls;
#[cfg(test)]
mod tls_attacks;
#[cfg(test)]
mod tls_certificates;
#[cfg(test)]
mod tls_client_certificates;
#[cfg(test)]
mod tls_clients;
#[cfg(test)]
mod tls_renewal;
#[cfg(test)]
mod tls_slow_keys;
#[cfg(test)]
mod tls_wire;
#[cfg(test)]
mod tunnel;
#[cfg(test)]
mod tunnel_doors;
#[cfg(test)]
mod tunnel_gateway;
#[cfg(test)]
mod tunnel_network;
#[cfg(test)]
mod tunnel_peers;
#[cfg(test)]
mod unresponsive_file_system;
#[cfg(test)]
mod upgrade;
#[cfg(test)]
mod upgrade_from_predecessor;
#[cfg(test)]
mod worker_demo;
